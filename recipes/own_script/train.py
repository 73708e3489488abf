"""Handwritten digits, trained by a script of one's own: plain PyTorch that torchrun starts.

Nothing in here comes from orchestrate: `torchrun --nproc-per-node=2 train.py --checkpoint last.pt` runs it as well.
"""

import argparse
import json
import math
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

received: list[int] = []
"""The signals that asked this process to save and end. They are only noted: the loop looks between two steps."""


def digits() -> tuple[TensorDataset, TensorDataset]:
    """1,437 images to train on and 360 held out: fp32 of shape (1, 8, 8), with their labels."""
    data = load_digits()
    images, labels = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(data.target)
    parts = train_test_split(torch.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    train, heldout = (TensorDataset(images[part], labels[part]) for part in parts)
    return train, heldout


def micro_batches(data: TensorDataset, size: int, first: int) -> Iterator[list[Tensor]]:
    """This rank's micro-batches from number `first` on, all of one size, pass after pass without end."""
    sampler = DistributedSampler(data, drop_last=True)
    loader = DataLoader(data, size, sampler=sampler, drop_last=True)
    epoch, skipped = divmod(first, len(loader))
    while True:
        sampler.set_epoch(epoch)
        yield from islice(loader, skipped, None)
        epoch, skipped = epoch + 1, 0


def train(args: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)
    first = (nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    network = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(256, 10))
    model = DistributedDataParallel(network.to(device))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    step, asked = 0, 0
    if args.checkpoint.exists():
        saved = torch.load(args.checkpoint, map_location=device)
        step = saved["step"]
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    data, heldout = digits()
    stream = micro_batches(data, args.micro_batch, first=step * args.accumulation)
    while step < args.steps and not asked:
        lr = args.lr * min(1, (step + 1) / max(1, args.warmup)) * (1 + math.cos(math.pi * step / args.steps)) / 2
        optimizer.param_groups[0]["lr"] = lr
        loss = torch.zeros((), device=device)
        for left in reversed(range(args.accumulation)):
            images, labels = (part.to(device) for part in next(stream))
            with model.no_sync() if left else nullcontext():  # the ranks exchange gradients once per step
                part = cross_entropy(model(images), labels) / args.accumulation
                part.backward()
            loss += part.detach()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        number = torch.tensor(max(received, default=0), device=device)
        asked = over_ranks(number, dist.ReduceOp.MAX)  # so all ranks end after the same step
        if step % 20 == 0 or step == args.steps or asked:
            loss = over_ranks(loss, dist.ReduceOp.SUM) / dist.get_world_size()
            if dist.get_rank() == 0:
                print(f"step {step}  loss {loss:.4f}  lr {lr:.2e}")
                state = {"step": step, "model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, args.checkpoint.with_suffix(".new"))
                args.checkpoint.with_suffix(".new").replace(args.checkpoint)  # whole, or not there at all
    if dist.get_rank() == 0 and not asked:
        images, labels = (part.to(device) for part in heldout.tensors)
        with torch.no_grad():
            print(f"held-out accuracy {(model.module(images).argmax(dim=1) == labels).double().mean():.4f}")
    elif dist.get_rank() == 0 and (folder := os.environ.get("ORCHESTRATE_ATTEMPT_DIR")):
        told = {"step": step, "signal": signal.Signals(asked).name}
        Path(folder, "stop.json").write_text(json.dumps(told))  # says: saved, and may be resumed


def over_ranks(value: Tensor, op: dist.ReduceOp.RedOpType) -> float | int:
    dist.all_reduce(value, op)
    return value.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"micro-batch": 16, "accumulation": 1, "lr": 5e-3, "warmup": 20, "steps": 330, "seed": 7}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--checkpoint", type=Path, required=True, help="read at the start, written every 20 steps")
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, _: received.append(number))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    dist.init_process_group("nccl" if cuda else "gloo")
    train(parser.parse_args(), device)
    dist.destroy_process_group()
