"""A window and its micro-batches as a loop of the user's own sees them; see `session`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.errors import Problem, TrainingError
from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.intake import Window
from orchestrator.worker.loss import backward_weight, refuse_no_sum
from orchestrator.worker.memory_watch import MemoryWatch, MicroBatchWatch
from orchestrator.worker.own_time import OwnTime
from orchestrator.worker.precision import Precision
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.window_step import WindowResult, exchange_gradients
from orchestrator.worker.world import Peers


@dataclass(frozen=True)
class Surroundings:
    """What all windows of a session share."""

    model: torch.nn.Module
    scaler: torch.amp.GradScaler
    precision: Precision
    peers: Peers
    memory: MemoryWatch
    pulse: Pulse
    own_time: OwnTime


class OwnWindow:
    """One step of the optimizer: iterate it once, for this rank's micro-batches, and update the weights after that."""

    def __init__(self, taken: Window, around: Surroundings, *, step: int, lr: float) -> None:
        self._taken, self._around = taken, around
        self.step = step
        """The number that this step will have, from 1."""
        self.lr = lr
        """What the optimizer's lr was set to."""
        self.result = WindowResult.of(taken, torch.zeros((), dtype=torch.float64, device=around.peers.device))
        self._num_scaled = 0
        self._watch: MicroBatchWatch | None = None

    @property
    def count(self) -> int:
        """What counts in the whole window, on all ranks: samples, or what `windows(count=...)` counts."""
        return self._taken.count

    def __iter__(self) -> Iterator[OwnBatch]:
        """This rank's micro-batches, on its device. As many on every rank; gradients are exchanged in the last one."""
        around, own_time = self._around, self._around.own_time
        own_time.met()
        for index, batch in enumerate(self._taken.batches):
            own_time.fetched()
            is_last = index == self._taken.num_micro_steps - 1
            exchange_gradients(around.model, is_last)
            self._watch = around.memory.micro_batch(batch.num_samples, self.step)
            self._watch.__enter__()
            inputs, targets = around.precision.place((batch.inputs, batch.targets))
            yield OwnBatch(self, batch, inputs, targets)
            if self._num_scaled != index + 1:
                what = f"micro-batch {index + 1} has had {self._num_scaled - index} calls of scale"
                fix = "call batch.scale(loss_sum).backward() once for each, also for one of 0 samples"
                raise TrainingError(Problem(f"step {self.step}", what, fix))
            if not is_last:
                own_time.computed()
        self._watch = None

    def check_whole(self) -> None:
        """Raises TrainingError where not all of its micro-batches have been worked on."""
        wanted = self._taken.num_micro_steps
        if self._num_scaled != wanted:
            what = f"{self._num_scaled} of the window's {wanted} micro-batches were used"
            raise TrainingError(Problem(f"step {self.step}", what, "iterate each window once, to its end"))

    def explained(self, error: BaseException) -> BaseException:
        """`error`; where memory ran out in a micro-batch, one that says in which."""
        return error if self._watch is None else self._watch.explained(error)

    def scaled(self, batch: MicroBatch, loss_sum: torch.Tensor) -> torch.Tensor:
        """What a micro-batch's backward pass begins at."""
        self._around.pulse.backward()
        refuse_no_sum(loss_sum, self.step)
        self._num_scaled += 1
        if batch.num_samples:
            self.result.add(loss_sum.detach(), batch.ids)
        world_size = self._around.peers.world.world_size
        weight = backward_weight(num_samples=batch.num_samples, world_size=world_size, window_count=self.count)
        scaled: torch.Tensor = self._around.scaler.scale(loss_sum * weight)
        self._around.own_time.forwarded()
        return scaled


@dataclass(frozen=True)
class OwnBatch:
    """One micro-batch, on the rank's device."""

    _window: OwnWindow
    _batch: MicroBatch
    inputs: Any
    targets: Any

    @property
    def num_samples(self) -> int:
        """Samples that count; 0 where this rank has no share and takes part with one that counts for nothing."""
        return self._batch.num_samples

    @property
    def ids(self) -> Sequence[int]:
        """Their ids: places in the datasets, one after the other."""
        return self._batch.ids

    def scale(self, loss_sum: torch.Tensor) -> torch.Tensor:
        """`loss_sum` weighted for the window, to call `backward` on; it is journaled as the window's part of the loss.

        `loss_sum`, shape (), is the sum over what counts in the micro-batch. Its weight is world size / the window's
        count: averaged over ranks and summed over micro-batches, the gradient is that of one big batch.
        """
        return self._window.scaled(self._batch, loss_sum)
