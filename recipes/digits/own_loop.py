"""The digits, trained by a loop of one's own: the same samples and the same loss curve as digits.yaml gives.

orchestrate submit recipes/digits/own_loop.yaml --wait
"""

import torch
from data import Digits
from model import accuracy, cross_entropy, network
from torch.utils.data import DataLoader, Subset

from orchestrator.worker import session


def evaluate(run, model):
    """Accuracy on the held-out part, each rank taking every so-manieth image of it."""
    heldout = Digits("heldout")
    share = Subset(heldout, range(run.rank, len(heldout), run.world_size))
    right = torch.zeros((), device=run.device)
    for batch in DataLoader(share, batch_size=64):
        images, labels = run.place(batch)
        with torch.no_grad(), run.autocast():
            right += accuracy(model(images), labels)[0]
    return run.sum([right])[0] / len(heldout)


def main():
    with session.start() as run:
        net = network(channels=32)
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01, fused=True)
        model = run.prepare(net, optimizer)
        for window in run.windows():
            for batch in window:
                with run.autocast():
                    loss_sum, _ = cross_entropy(model(batch.inputs), batch.targets)
                batch.scale(loss_sum).backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            run.log({"train/grad_norm": norm})
        if not run.should_stop:
            run.log({"val/accuracy": evaluate(run, net)})


if __name__ == "__main__":
    main()
