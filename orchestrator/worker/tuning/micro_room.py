"""Says once, after some steps in a lower precision, which larger micro-batch memory has room for. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from orchestrator.recipe.schema import Recipe
from orchestrator.talk import warn
from orchestrator.tracking.events import ADVICE, MICRO
from orchestrator.tuning.micro_room import FREE_MEMORY, room_text, roomier
from orchestrator.worker.course import Course
from orchestrator.worker.peak import PeakMemory
from orchestrator.worker.tensors import num_bytes_of, tensors_in
from orchestrator.worker.tuning.devices import memory_of

LOOKED_AT_STEPS = 100
"""In one precision, which the peak is of; before gradients are compared again, which takes memory too."""


@dataclass
class MicroRoom:
    """Call `stepped` after each step, on every rank."""

    course: Course
    recipe: Recipe
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    memory: PeakMemory
    gpu_bytes: int
    _precision: str = field(default="", init=False)
    _num_steps: int = field(default=0, init=False)
    """In that precision."""

    def stepped(self) -> None:
        """Where the time has come, hear of all ranks; a collective then."""
        precision = self.course.progress.tuned_precision or self.recipe.precision
        if precision != self._precision:
            self._precision, self._num_steps = precision, 0
            self.memory.begin_anew()
            return
        self._num_steps += 1
        if self._num_steps == LOOKED_AT_STEPS and precision in FREE_MEMORY:
            self._look()

    def _look(self) -> None:
        """A batch norm sees micro-batches: other ones would be other arithmetic."""
        if any(isinstance(one, torch.nn.modules.batchnorm._BatchNorm) and one.training for one in self.model.modules()):
            return
        told = self.course.peers.gather([float(self.memory.recent_bytes()), float(self.gpu_bytes)])
        peak, room = int(max(one[0] for one in told)), int(min(one[1] for one in told))
        plan = self.course.plan
        found = roomier(self.recipe, plan, peak_bytes=peak, held_bytes=self._held_bytes(), gpu_bytes=room)
        if found is None or self.course.peers.world.rank != 0:
            return
        text = room_text(plan.batch, found, self._precision, peak_bytes=peak, gpu_bytes=room)
        step = self.course.progress.step
        self.course.journal.event(ADVICE, {"step": step, "knob": MICRO, "to": found.micro_batch_size, "advice": text})
        warn(f"step {step}: {text}")

    def _held_bytes(self) -> int:
        """Weights, gradients and the optimizer's state, as far as they are on the device."""
        parameters, device = list(self.model.parameters()), self.memory.device
        state = [one for one in tensors_in(list(self.optimizer.state.values())) if one.device.type == device.type]
        return num_bytes_of([*parameters, *state]) + num_bytes_of([one for one in parameters if one.requires_grad])


def micro_room_of(
    course: Course,
    recipe: Recipe,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    memory: PeakMemory,
) -> MicroRoom | None:
    """What looks for room on a GPU; None where there is none, or a step is one micro-step as it is."""
    gpu_bytes = memory_of(memory.device)
    if gpu_bytes is None or course.plan.batch.gradient_accumulation_steps == 1:
        return None
    return MicroRoom(course, recipe, model, optimizer, memory, gpu_bytes)
