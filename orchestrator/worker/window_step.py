"""One optimizer step: a window's micro-batches forward and backward, one update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.intake import Intake, Window
from orchestrator.worker.loss import Objective, backward_weight
from orchestrator.worker.memory_watch import MemoryWatch
from orchestrator.worker.optimizer import clip_gradients, forget_gradients, set_lr, update_weights
from orchestrator.worker.own_time import OwnTime
from orchestrator.worker.precision import Precision, call_model
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.seeds import StepSeeds
from orchestrator.worker.settled import Settled
from orchestrator.worker.world import Peers

GRAD_NORM_EVERY_STEPS = 32
"""Where nothing is clipped, the gradient's norm is measured in every such step: it costs as much as a small layer."""

_NOTHING = contextlib.nullcontext()


@dataclass
class WindowResult:
    """What one window came to on this rank."""

    count: int
    """What counted in the whole window, on all ranks; 0 when nothing did, and then there was no update."""
    loss_sum: torch.Tensor
    """Sum of the loss over this rank's micro-batches: shape (), on the device; of several, in fp64."""
    grad_norm: torch.Tensor | None = None
    """The global gradient norm before clipping: shape (), the same on every rank; None where it was not measured."""
    ids: list[Sequence[int]] = field(default_factory=list)
    """The sample ids that arrived, by micro-batch."""

    @classmethod
    def of(cls, window: Window, no_loss: torch.Tensor) -> WindowResult:
        """Of a window that was taken, before any loss. The samples of one in which nothing counts have arrived too."""
        ids = [batch.ids for batch in window.fetched if batch.num_samples] if window.count == 0 else []
        return cls(window.count, no_loss, ids=ids)

    def add(self, loss_sum: torch.Tensor, ids: Sequence[int]) -> None:
        """Take one micro-batch that counted."""
        self.loss_sum = self.loss_sum.double() + loss_sum if self.ids else loss_sum
        self.ids.append(ids)


def exchange_gradients(model: torch.nn.Module, is_last: bool) -> None:
    """Gradients are exchanged in the backward pass of a window's last micro-step alone: what no_sync() does."""
    if isinstance(model, DistributedDataParallel) and model.require_backward_grad_sync != is_last:
        model.require_backward_grad_sync = is_last


def nothing_around(batch: MicroBatch, step: int) -> contextlib.AbstractContextManager[Any]:
    """What a micro-step runs in, usually."""
    return _NOTHING


@dataclass
class WindowStep:
    """All that one optimizer step needs; call it once per window, on every rank."""

    model: torch.nn.Module
    """The model, or DistributedDataParallel around it where there are several ranks."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    precision: Precision
    intake: Intake
    settled: Settled
    peers: Peers
    clip_norm: float | None
    seed: int
    memory: MemoryWatch
    pulse: Pulse = field(default_factory=Pulse)
    own_time: OwnTime = field(default_factory=OwnTime)
    counts_checked: bool = False
    around_micro_step: Callable[[MicroBatch, int], contextlib.AbstractContextManager[Any]] = nothing_around
    """What each forward and backward runs in; verification draws the randomness by sample there."""
    accepts: Callable[[WindowResult], bool] | None = None
    """Asked before each update, on every rank, where the recipe may pass over a window; None: each one is made."""
    _weights: dict[tuple[float, torch.dtype], torch.Tensor] = field(default_factory=dict, init=False)
    _buffers: list[torch.Tensor] = field(init=False)
    _no_loss: torch.Tensor = field(init=False)
    _seeds: StepSeeds = field(init=False)

    def __post_init__(self) -> None:
        self._buffers = list(self.model.buffers())
        self._no_loss = torch.zeros((), dtype=torch.float64, device=self.peers.device)
        self._seeds = StepSeeds(self.seed, self.peers.world.rank, self.peers.device)

    def __call__(self, stream: Iterator[MicroBatch], *, step: int, consumed_samples: int, lr: float) -> WindowResult:
        """Take the window that begins at `consumed_samples` from `stream`, and update the weights.

        `step` is the number that this update will have, from 1.
        """
        window = self.intake.take(stream, step=step, consumed_samples=consumed_samples)
        result = WindowResult.of(window, self._no_loss)
        if window.count == 0:
            self.settled.settle(step)
            return result
        buffers = None if self.accepts is None else [buffer.clone() for buffer in self._buffers]
        self._seeds.begin(step)
        for index, batch in enumerate(window.batches):
            self.own_time.fetched()
            is_last = index == window.num_micro_steps - 1
            exchange_gradients(self.model, is_last)
            with self.around_micro_step(batch, step), self.memory.micro_batch(batch.num_samples, step):
                self._micro_step(batch, result, step)
            if not is_last:
                self.own_time.computed()
        self.counts_checked = True
        if buffers is None or self._is_accepted(result, buffers):
            result.grad_norm = self._update(lr, step)
        self.settled.settle(step)
        return result

    def pass_over(self, stream: Iterator[MicroBatch], *, step: int, consumed_samples: int) -> WindowResult:
        """Take the window that begins at `consumed_samples` from `stream`, and let it count for nothing."""
        batches = list(islice(stream, self.intake.windows.num_micro_steps_at(consumed_samples)))
        self.settled.settle(step)
        return WindowResult(0, self._no_loss, ids=[batch.ids for batch in batches if batch.num_samples])

    def _is_accepted(self, result: WindowResult, buffers: list[torch.Tensor]) -> bool:
        """Whether the update may be made. If not, all is as it was before the window: `buffers` is what they held."""
        assert self.accepts is not None
        if not self.scaler.is_enabled():
            result.grad_norm = clip_gradients(self.optimizer, None)
        if self.accepts(result):
            return True
        forget_gradients(self.optimizer)
        for buffer, before in zip(self._buffers, buffers, strict=True):
            buffer.copy_(before)
        result.count, result.loss_sum, result.grad_norm = 0, self._no_loss, None
        return False

    def _micro_step(self, batch: MicroBatch, result: WindowResult, step: int) -> None:
        inputs, targets = self.precision.place((batch.inputs, batch.targets))
        with self.precision.forward_context():
            loss_sum, told = self.objective.loss(call_model(self.model, inputs), targets)
        if not self.counts_checked:
            self.objective.check(loss_sum, told, expected=self.intake.counts_of(batch), batch=batch, step=step)
        weight = backward_weight(
            num_samples=batch.num_samples,
            world_size=self.peers.world.world_size,
            window_count=result.count,
        )
        scaled = self.scaler.scale(loss_sum)
        self.pulse.backward()
        self.own_time.forwarded()
        scaled.backward(gradient=self._weight(scaled, weight))  # type: ignore[no-untyped-call]
        if batch.num_samples:
            result.add(loss_sum.detach(), batch.ids)

    def _weight(self, loss: torch.Tensor, weight: float) -> torch.Tensor:
        """`weight` as the gradient of `loss`: multiplying the loss by it would be two more kernels a micro-step."""
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
        self.settled.unsettle()
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            update_weights(self.optimizer)
        forget_gradients(self.optimizer)
        return norm
