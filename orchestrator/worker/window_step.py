"""One optimizer step: a window's micro-batches forward and backward, one update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from orchestrator.worker.bad_samples import BadSamples
from orchestrator.worker.data import MicroBatch
from orchestrator.worker.loss import Objective, backward_weight
from orchestrator.worker.memory_watch import MemoryWatch
from orchestrator.worker.optimizer import clip_gradients, set_lr
from orchestrator.worker.precision import Precision, call_model
from orchestrator.worker.seeds import derived_seed, seed_torch
from orchestrator.worker.windows import Windows
from orchestrator.worker.world import Peers

GRAD_NORM_EVERY_STEPS = 32
"""Where nothing is clipped, the gradient's norm is measured in every such step: it costs as much as a small layer."""


@dataclass
class WindowResult:
    """What one window came to on this rank."""

    count: int
    """What counted in the whole window, on all ranks; 0 when nothing did, and then there was no update."""
    loss_sum: torch.Tensor
    """Sum of the loss over this rank's micro-batches: fp64, shape (), on the device."""
    grad_norm: torch.Tensor | None = None
    """The global gradient norm before clipping: shape (), the same on every rank; None where it was not measured."""
    ids: list[Sequence[int]] = field(default_factory=list)
    """The sample ids that arrived, by micro-batch."""


def _nothing_around(batch: MicroBatch, step: int) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


@dataclass
class WindowStep:
    """All that one optimizer step needs; call it once per window, on every rank."""

    model: torch.nn.Module
    """The model, or DistributedDataParallel around it where there are several ranks."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    precision: Precision
    windows: Windows
    peers: Peers
    clip_norm: float | None
    seed: int
    memory: MemoryWatch
    bad_samples: BadSamples
    counts_checked: bool = False
    around_micro_step: Callable[[MicroBatch, int], contextlib.AbstractContextManager[Any]] = _nothing_around
    """What each forward and backward runs in; verification draws the randomness by sample there."""
    accepts: Callable[[WindowResult], bool] | None = None
    """Asked before each update, on every rank, where the recipe may pass over a window; None: each one is made."""
    _weights: dict[tuple[float, torch.dtype], torch.Tensor] = field(default_factory=dict, init=False)
    _settled: tuple[int, list[int]] | None = field(default=None, init=False)
    """The step that the weights are of, and how often each buffer had been written to; None during an update."""
    _buffers: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._buffers = list(self.model.buffers())

    def __call__(self, stream: Iterator[MicroBatch], *, step: int, consumed_samples: int, lr: float) -> WindowResult:
        """Take the window that begins at `consumed_samples` from `stream`, and update the weights.

        `step` is the number that this update will have, from 1.
        """
        num_micro_steps = self.windows.num_micro_steps_at(consumed_samples)
        batches = islice(stream, num_micro_steps)
        fetched = list(batches) if self.objective.counts_fetched else []
        self.bad_samples.note(fetched, step)
        count = self.objective.window_count(fetched, self.windows.size_at(consumed_samples), self.peers)
        result = WindowResult(count, torch.zeros((), dtype=torch.float64, device=self.peers.device))
        if count == 0:
            result.ids.extend(batch.ids for batch in fetched if batch.num_samples)
            self.settle(step)
            return result
        buffers = None if self.accepts is None else [buffer.clone() for buffer in self._buffers]
        seed_torch(derived_seed(self.seed, step, self.peers.world.rank), self.peers.device)
        for index, batch in enumerate(fetched or batches):
            is_last, watched = index == num_micro_steps - 1, self.memory.micro_batch(batch.num_samples, step)
            with self.around_micro_step(batch, step), self._silence(until_last=is_last), watched:
                self._micro_step(batch, result, step)
        self.counts_checked = True
        if buffers is None or self._is_accepted(result, buffers):
            result.grad_norm = self._update(lr, step)
        self.settle(step)
        return result

    def pass_over(self, stream: Iterator[MicroBatch], *, step: int, consumed_samples: int) -> WindowResult:
        """Take the window that begins at `consumed_samples` from `stream`, and let it count for nothing."""
        batches = list(islice(stream, self.windows.num_micro_steps_at(consumed_samples)))
        self.settle(step)
        nothing = torch.zeros((), dtype=torch.float64, device=self.peers.device)
        return WindowResult(0, nothing, ids=[batch.ids for batch in batches if batch.num_samples])

    def _is_accepted(self, result: WindowResult, buffers: list[torch.Tensor]) -> bool:
        """Whether the update may be made. If not, all is as it was before the window: `buffers` is what they held."""
        assert self.accepts is not None
        if not self.scaler.is_enabled():
            result.grad_norm = clip_gradients(self.optimizer, None)
        if self.accepts(result):
            return True
        self.optimizer.zero_grad()
        for buffer, before in zip(self._buffers, buffers, strict=True):
            buffer.copy_(before)
        result.count, result.loss_sum, result.grad_norm = 0, torch.zeros_like(result.loss_sum), None
        return False

    def settle(self, step: int) -> None:
        """Model and optimizer are those of `step`, until the next update begins."""
        self._settled = step, self._versions()

    def is_whole_at(self, step: int) -> bool:
        """Whether model and optimizer are those of `step`, even in the middle of the next window.

        A forward pass may have written to a buffer since (BatchNorm does): then they are not.
        """
        same = [id(buffer) for buffer in self._buffers] == [id(buffer) for buffer in self.model.buffers()]
        return same and self._settled == (step, self._versions())

    def _silence(self, *, until_last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged in the backward pass of a window's last micro-step alone."""
        if until_last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _micro_step(self, batch: MicroBatch, result: WindowResult, step: int) -> None:
        inputs, targets = self.precision.place((batch.inputs, batch.targets))
        with self.precision.forward_context():
            loss_sum, told = self.objective.loss(call_model(self.model, inputs), targets)
        if not self.counts_checked:
            self.objective.check_count(told, batch, step)
        weight = backward_weight(
            num_samples=batch.num_samples,
            world_size=self.peers.world.world_size,
            window_count=result.count,
        )
        scaled = self.scaler.scale(loss_sum)
        scaled.backward(gradient=self._weight(scaled, weight))  # type: ignore[no-untyped-call]
        if batch.num_samples:
            result.loss_sum += loss_sum.detach()
            result.ids.append(batch.ids)

    def _weight(self, loss: torch.Tensor, weight: float) -> torch.Tensor:
        """`weight` as the gradient of `loss`: multiplying the loss by it would be two more kernels a micro-step."""
        if loss.dim():
            return torch.full_like(loss, weight)
        key = (weight, loss.dtype)
        if key not in self._weights:
            self._weights = {key: torch.full_like(loss, weight, requires_grad=False)}
        return self._weights[key]

    def _update(self, lr: float, step: int) -> torch.Tensor | None:
        """Clip the true gradients, update the weights at `lr`, forget the gradients. The norm before clipping."""
        set_lr(self.optimizer, lr)
        norm = None
        if self.clip_norm is not None or step % GRAD_NORM_EVERY_STEPS == 1:
            self.scaler.unscale_(self.optimizer)
            norm = clip_gradients(self.optimizer, self.clip_norm)
        self._settled = None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return norm

    def _versions(self) -> list[int]:
        return [buffer._version for buffer in self._buffers]
