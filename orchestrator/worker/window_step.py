"""One optimizer step: a window's micro-batches forward and backward, one update."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch.nn.parallel import DistributedDataParallel

from orchestrator.worker.data import MicroBatch
from orchestrator.worker.loss import Objective, backward_loss
from orchestrator.worker.optimizer import clip_gradients, set_lr
from orchestrator.worker.precision import Precision, call_model
from orchestrator.worker.seeds import derived_seed, seed_torch
from orchestrator.worker.windows import Windows
from orchestrator.worker.world import Peers


@dataclass(frozen=True)
class WindowResult:
    """What one window came to on this rank."""

    loss_sum: torch.Tensor
    """Sum of the loss over this rank's micro-batches: fp64, shape (1,), on the device."""
    count: int
    """What counted in the whole window, on all ranks; 0 when nothing did, and then there was no update."""
    grad_norm: torch.Tensor
    """The global gradient norm before clipping: shape (), the same on every rank."""
    ids: list[Sequence[int]]
    """The sample ids that arrived, by micro-batch."""


@dataclass
class WindowStep:
    """All that one optimizer step needs; call it once per window, on every rank."""

    model: DistributedDataParallel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    precision: Precision
    windows: Windows
    peers: Peers
    clip_norm: float | None
    seed: int
    counts_checked: bool = False

    def __call__(self, stream: Iterator[MicroBatch], *, step: int, consumed_samples: int, lr: float) -> WindowResult:
        """Take the window that begins at `consumed_samples` from `stream`, and update the weights.

        `step` is the number that this update will have, from 1.
        """
        num_micro_steps = self.windows.num_micro_steps_at(consumed_samples)
        batches = islice(stream, num_micro_steps)
        fetched = list(batches) if self.objective.count else []
        count = self.objective.window_count(fetched, self.windows.size_at(consumed_samples), self.peers)
        result = WindowResult(self._zeros(1), count, self._zeros(), [])
        if count == 0:
            result.ids.extend(batch.ids for batch in fetched if batch.num_samples)
            return result
        seed_torch(derived_seed(self.seed, step, self.peers.world.rank), self.peers.device)
        for index, batch in enumerate(fetched or batches):
            with contextlib.nullcontext() if index == num_micro_steps - 1 else self.model.no_sync():
                self._micro_step(batch, result, step)
        self.counts_checked = True
        result.grad_norm.copy_(self._update(lr))
        return result

    def _micro_step(self, batch: MicroBatch, result: WindowResult, step: int) -> None:
        inputs, targets = self.precision.place((batch.inputs, batch.targets))
        with self.precision.forward_context():
            loss_sum, told = self.objective.loss(call_model(self.model, inputs), targets)
        if not self.counts_checked:
            self.objective.check_count(told, batch, step)
        loss = backward_loss(
            loss_sum,
            num_samples=batch.num_samples,
            world_size=self.peers.world.world_size,
            window_count=result.count,
        )
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if batch.num_samples:
            result.loss_sum.add_(loss_sum.detach())
            result.ids.append(batch.ids)

    def _update(self, lr: float) -> torch.Tensor:
        """Clip the true gradients, update the weights at `lr`, forget the gradients. The norm before clipping."""
        set_lr(self.optimizer, lr)
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.optimizer, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return norm

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.peers.device)
