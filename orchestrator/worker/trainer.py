"""The training loop: one step after the other, as long as the course goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.errors import NonFiniteError, Problem
from orchestrator.recipe.schema import NonFinite
from orchestrator.worker.course import NON_FINITE_FIX, Course
from orchestrator.worker.data.lanes import LiveBatches
from orchestrator.worker.data.loader import MicroBatches
from orchestrator.worker.evaluation import Evaluator
from orchestrator.worker.failure import one_line
from orchestrator.worker.nonfinite import Decision, decide, is_passed_over
from orchestrator.worker.optimizer import forget_gradients
from orchestrator.worker.tuning.amp_tuner import AmpTuner
from orchestrator.worker.tuning.loader_tuner import LoaderTuner
from orchestrator.worker.tuning.micro_room import MicroRoom
from orchestrator.worker.window_step import WindowResult, WindowStep


@dataclass
class Trainer:
    """Everything a run holds while it trains."""

    course: Course
    window_step: WindowStep
    batches: MicroBatches
    batches_from: Callable[[int], MicroBatches]
    """Opens the stream of micro-batches after so many consumed samples."""
    evaluator: Evaluator
    tuner: LoaderTuner | None = None
    """None where the loader stays as the recipe has it."""
    amp: AmpTuner | None = None
    """None where the precision does."""
    room: MicroRoom | None = None
    """None where no larger micro-batch is looked for."""
    policy: NonFinite | None = None
    """What to do about a loss that is no number; None: stop."""
    _decision: Decision | None = field(default=None, init=False)

    def run(self) -> str | None:
        """Train to the end, and return None; or save and return what asked for it, a signal or DEADLINE."""
        if self.policy is not None and self.policy.action != "stop":
            self.window_step.accepts = self.accepts
        self.course.begin()
        while self._advances():
            pass
        return self.course.stopped_by

    def _advances(self) -> bool:
        """Make the next step; False where there is none. A lower precision that gives no number is taken back."""
        try:
            if not self.course.goes_on():
                return False
            self._step()
        except NonFiniteError as error:
            lower = None if self.amp is None else self.amp.lower
            if self.amp is None or lower is None or not self._roll_back():
                raise
            self.amp.revert(self.course.progress.step, lower, one_line(error))
        return True

    def _step(self) -> None:
        """One optimizer step."""
        lr, waited_before_s = self.course.lr(), self.batches.waited_s
        self._decision = None
        before = self.course.progress.consumed_samples
        result = self._window(before, lr)
        waited_s = self.batches.waited_s - waited_before_s
        time_s = self.course.made(result, lr=lr, waited_s=waited_s)
        if self.tuner is not None:
            num_micro_steps = self.course.windows.num_micro_steps_at(before)
            self.tuner.stepped(
                self.course.progress.step, time_s=time_s, waited_s=waited_s, num_micro_steps=num_micro_steps
            )
        if self.amp is not None:
            self.amp.stepped(self.course.progress.step, time_s=time_s, waited_s=waited_s)
        if self.room is not None:
            self.room.stepped()
        if self._decision is not None and self._decision.action == "roll_back":
            self._roll_back()

    def _window(self, before: int, lr: float) -> WindowResult:
        step = self.course.progress.step + 1
        if is_passed_over(before, self.course.progress.passed_over):
            return self.window_step.pass_over(self.batches, step=step, consumed_samples=before)
        return self.window_step(self.batches, step=step, consumed_samples=before, lr=lr)

    def accepts(self, result: WindowResult) -> bool:
        """Whether the window that was just computed may change the weights; decided alike on every rank.

        Raises NonFiniteError where the recipe wants an end, or has passed over as many windows as it may.
        """
        course, progress = self.course, self.course.progress
        (loss_sum,) = course.peers.sum([result.loss_sum.item()])
        step, start = progress.step + 1, progress.consumed_samples
        norm = None if result.grad_norm is None else result.grad_norm.item()
        loss = loss_sum / result.count
        decision = decide(self.policy, window_start=start, loss=loss, grad_norm=norm, passed_over=progress.passed_over)
        if decision.action == "update":
            return True
        is_lower = self.amp is not None and self.amp.lower is not None
        if decision.action == "stop" or is_lower:
            raise NonFiniteError(Problem(f"step {step}", decision.why, NON_FINITE_FIX))
        self._decision, progress.passed_over = decision, decision.passed_over
        course.journal.event("passed_over", {"step": step, "why": decision.why, "ids": [list(i) for i in result.ids]})
        return False

    def _roll_back(self) -> bool:
        """Go on from the newest checkpoint; False where there is none yet."""
        course, progress = self.course, self.course.progress
        self._hear_all()
        passed_over, step = progress.passed_over, progress.step
        restored = course.saver.restore()
        if restored is None:
            return False
        forget_gradients(self.window_step.optimizer)
        vars(progress).update(vars(restored), passed_over=passed_over)
        self.batches.close()
        self.batches = self.batches_from(restored.consumed_samples)
        if self.tuner is not None and isinstance(self.batches, LiveBatches):
            self.tuner.follow(self.batches)
        if self.amp is not None:
            self.amp.restored()
        course.journal.event("rolled_back", {"from_step": step, "to_step": restored.step})
        course.went_back()
        return True

    def _hear_all(self) -> None:
        """What ranks have reported, of steps that will be made again: numbers or not."""
        while True:
            with contextlib.suppress(NonFiniteError):
                return self.course.hear_the_rest()
