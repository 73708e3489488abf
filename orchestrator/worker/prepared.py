"""What a session makes of the user's model and optimizer; see `session`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from orchestrator.worker.checkpoints.saver import Saver
from orchestrator.worker.course import Course
from orchestrator.worker.data.loader import MicroBatches
from orchestrator.worker.failure import at_step
from orchestrator.worker.settled import Settled


@dataclass
class Prepared:
    """A loop of the user's own, ready to go."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    saver: Saver
    course: Course
    settled: Settled
    stream: MicroBatches
    is_over: bool = False
    """Whether the loop has come to the run's end, or was asked to stop."""

    def rescue(self, error: BaseException) -> None:
        """Before the end by `error`: say at which step, and save what has been learnt as far as that can be."""
        step = self.course.progress.step
        at_step(error, step + 1)
        self.course.tell_what_is_known()
        self.saver.rescue(error, self.course.progress, is_whole=self.settled.is_whole_at(step))
