"""The training loop: evaluate, save or stop where it is due, else one more step. The same decisions on every rank."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.errors import Problem, TrainingError
from orchestrator.plan.plan import Plan
from orchestrator.plan.schedule import lr_at
from orchestrator.tracking.journal import Journal
from orchestrator.worker.evaluation import Evaluator
from orchestrator.worker.loader import MicroBatches
from orchestrator.worker.preemption import StopRequest, agreed_signal
from orchestrator.worker.progress import Cadences, Progress
from orchestrator.worker.window_step import WindowResult, WindowStep
from orchestrator.worker.world import Peers


@dataclass(frozen=True)
class Reduced:
    """What all ranks know after a step: the same numbers, hence the same decisions."""

    loss_sum: float
    data_wait_s: float
    """Seconds spent waiting for data, summed over ranks."""
    save_due: bool
    stop: str | None


@dataclass
class Trainer:
    """Everything a run holds while it trains. `save` is a collective; it is called between steps only."""

    plan: Plan
    cadences: Cadences
    progress: Progress
    window_step: WindowStep
    batches: MicroBatches
    evaluator: Evaluator
    journal: Journal
    peers: Peers
    stop: StopRequest
    save: Callable[[Progress], None]
    saved_at_step: int | None
    """The step of the newest checkpoint; None as long as there is none."""
    journal_ids: bool
    _mark: float = field(default=0.0, init=False)
    _saved_at: float = field(default=0.0, init=False)

    def run(self) -> str | None:
        """Train to the end, and return None; or save and return the name of the signal that asked for it."""
        stop = agreed_signal(self.peers.sum(self.stop.as_votes()))
        save_due = False
        self._saved_at = self._mark = time.perf_counter()
        while True:
            stop = self._evaluate_where_due(stop)
            ended = self.cadences.is_finished(self.progress) and not self._evaluation_due()
            if ended or save_due or stop:
                self._save_once()
            if ended or stop:
                return None if ended else stop
            reduced = self._step()
            stop, save_due = reduced.stop, reduced.save_due

    def _step(self) -> Reduced:
        """One optimizer step, and the one small all-reduce that all decisions rest on."""
        progress = self.progress
        before, waited_before_s = progress.consumed_samples, self.batches.waited_s
        lr = self._lr_at(before)
        result = self.window_step(self.batches, step=progress.step + 1, consumed_samples=before, lr=lr)
        progress.step += 1
        progress.consumed_samples += self.window_step.windows.size_at(before)
        reduced = self._reduce(result, before, self.batches.waited_s - waited_before_s)
        self._record(result, reduced, lr, num_samples=progress.consumed_samples - before)
        self._refuse_non_finite(reduced.loss_sum, "training loss")
        if not self.window_step.scaler.is_enabled():
            self._refuse_non_finite(result.grad_norm.item(), "gradient norm")
        return reduced

    def _lr_at(self, consumed_samples: int) -> float:
        return lr_at(
            consumed_samples,
            peak_lr=self.plan.learning_rate.peak_lr,
            schedule=self.plan.schedule,
            effective_batch_size=self.plan.batch.effective_batch_size,
        )

    def _reduce(self, result: WindowResult, before_samples: int, waited_s: float) -> Reduced:
        vote = float(self.peers.world.rank == 0 and self._save_due_by_clock())
        loss_sum, waited_s, save_votes, *votes = self.peers.sum(result.loss_sum, waited_s, vote, *self.stop.as_votes())
        save_due = save_votes > 0 or self.cadences.save_due(before_samples, self.progress.consumed_samples)
        return Reduced(loss_sum, waited_s, save_due, agreed_signal(votes))

    def _save_due_by_clock(self) -> bool:
        every_s = self.cadences.save_every_s
        return every_s is not None and time.perf_counter() - self._saved_at >= every_s

    def _record(self, result: WindowResult, reduced: Reduced, lr: float, *, num_samples: int) -> None:
        now = time.perf_counter()
        step_time_s, self._mark = now - self._mark, now
        step = self.progress.step
        if self.journal_ids:
            self.journal.window(step, result.ids)
        if self.peers.world.rank != 0:
            return
        values = {
            "train/lr": lr,
            "train/step_time_s": step_time_s,
            "train/samples_per_s": num_samples / step_time_s,
            "train/data_wait": reduced.data_wait_s / self.peers.world.world_size / step_time_s,
            "progress/samples": self.progress.consumed_samples,
            "progress/epoch": self.progress.consumed_samples / self.window_step.windows.order.samples_per_epoch,
        }
        if result.count:
            values |= {"train/loss": reduced.loss_sum / result.count, "train/grad_norm": result.grad_norm.item()}
        else:
            self.journal.event("empty_window", {"step": step})
        self.journal.metrics(step, values)

    def _refuse_non_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            fix = "lower optimizer.lr, set optimizer.clip_norm, or look at this step's data"
            raise TrainingError(Problem(f"step {self.progress.step}", f"the {what} is {value}", fix))

    def _evaluation_due(self) -> bool:
        return self.evaluator.has_sets and self.cadences.evaluation_due(self.progress)

    def _evaluate_where_due(self, stop: str | None) -> str | None:
        """Evaluate unless nothing is due or a stop is; a resume makes up for it. The signal that is known then."""
        if stop or not self._evaluation_due():
            return stop
        metrics, stop = self.evaluator.run(self.window_step.model.module, self.stop)
        if metrics is not None:
            self.progress.metrics = metrics
            self.progress.evaluated_samples = self.progress.consumed_samples
            if self.peers.world.rank == 0:
                self.journal.metrics(self.progress.step, metrics)
        self._mark = time.perf_counter()
        return stop

    def _save_once(self) -> None:
        """Save, unless the newest checkpoint is of this very step."""
        if self.saved_at_step != self.progress.step:
            self.journal.flush()
            self.save(self.progress)
            self.saved_at_step = self.progress.step
            self.journal.event("saved", {"step": self.progress.step})
        self._saved_at = self._mark = time.perf_counter()
