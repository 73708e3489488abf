"""The training loop: evaluate, save or stop where it is due, else one more step. The same decisions on every rank."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from orchestrator.errors import Problem, TrainingError
from orchestrator.plan.plan import Plan
from orchestrator.plan.schedule import lr_at
from orchestrator.recipe.schema import NonFinite
from orchestrator.tracking.journal import Journal
from orchestrator.worker.evaluation import Evaluator
from orchestrator.worker.loader import MicroBatches
from orchestrator.worker.nonfinite import Decision, decide, is_passed_over
from orchestrator.worker.preemption import StopRequest, agreed_signal
from orchestrator.worker.progress import Cadences, Progress
from orchestrator.worker.reports import Exchanged, Reports, StepReport
from orchestrator.worker.window_step import WindowResult, WindowStep
from orchestrator.worker.world import Peers

_FIX = "lower optimizer.lr, set optimizer.clip_norm, or look at this step's data"


class Checkpoints(Protocol):
    """What a run is begun from and saved to: a Saver, or nothing at all for a run that is only looked at."""

    @property
    def scaler(self) -> torch.amp.GradScaler: ...

    def restore(self) -> Progress | None: ...

    def save(self, progress: Progress, *, last: bool) -> None: ...

    def would_be_best(self, progress: Progress) -> bool: ...


@dataclass
class Trainer:
    """Everything a run holds while it trains."""

    plan: Plan
    cadences: Cadences
    progress: Progress
    window_step: WindowStep
    batches: MicroBatches
    evaluator: Evaluator
    journal: Journal
    peers: Peers
    stop: StopRequest
    saver: Checkpoints
    journal_ids: bool
    batches_from: Callable[[int], MicroBatches]
    """Opens the stream of micro-batches after so many consumed samples."""
    policy: NonFinite | None = None
    """What to do about a loss that is no number; None: stop."""
    _decision: Decision | None = field(default=None, init=False)
    _reports: Reports = field(init=False)
    _save_due: bool = field(default=False, init=False)
    _stop: str | None = field(default=None, init=False)
    """The signal that all ranks know to have been seen by one of them."""
    _mark: float = field(default=0.0, init=False)
    _saved_at: float = field(default=0.0, init=False)

    def run(self) -> str | None:
        """Train to the end, and return None; or save and return the name of the signal that asked for it."""
        self._reports = Reports(self.peers, self.stop, self._save_due_by_clock)
        if self.policy is not None and self.policy.action != "stop":
            self.window_step.accepts = self.accepts
        self._stop = agreed_signal(self.peers.sum(self.stop.as_votes()))
        self._saved_at = self._mark = time.perf_counter()
        while True:
            if self._pause_due():
                self._hear_the_rest()
            self._evaluate_where_due()
            ended = self.cadences.is_finished(self.progress) and not self._evaluation_due()
            if ended or self._save_due or self._stop or self.saver.would_be_best(self.progress):
                self._save(last=ended or self._stop is not None)
            if ended or self._stop:
                return None if ended else self._stop
            self._step()

    def _step(self) -> None:
        """One optimizer step; what an earlier one came to on all ranks is heard of meanwhile."""
        progress = self.progress
        before, waited_before_s = progress.consumed_samples, self.batches.waited_s
        lr = self._lr_at(before)
        self._decision = None
        result = self._window(before, lr)
        num_samples = self.window_step.windows.size_at(before)
        progress.step += 1
        progress.consumed_samples += num_samples
        if self.journal_ids:
            self.journal.window(progress.step, result.ids)
        now = time.perf_counter()
        time_s, self._mark = now - self._mark, now
        report = StepReport(
            step=progress.step,
            consumed_samples=progress.consumed_samples,
            num_samples=num_samples,
            count=result.count,
            lr=lr,
            loss_sum=result.loss_sum,
            grad_norm=result.grad_norm,
            waited_s=self.batches.waited_s - waited_before_s,
            time_s=time_s,
            ended_at_ms=time.time_ns() // 1_000_000,
        )
        self._hear(self._reports.add(report))
        self._save_due = self._save_due or self.cadences.save_due(before, progress.consumed_samples)
        if self._decision is not None and self._decision.action == "roll_back":
            self._roll_back()

    def _window(self, before: int, lr: float) -> WindowResult:
        step = self.progress.step + 1
        if is_passed_over(before, self.progress.passed_over):
            return self.window_step.pass_over(self.batches, step=step, consumed_samples=before)
        return self.window_step(self.batches, step=step, consumed_samples=before, lr=lr)

    def accepts(self, result: WindowResult) -> bool:
        """Whether the window that was just computed may change the weights; decided alike on every rank.

        Raises TrainingError where the recipe wants an end, or has passed over as many windows as it may.
        """
        (loss_sum,) = self.peers.sum([result.loss_sum.item()])
        step, start = self.progress.step + 1, self.progress.consumed_samples
        norm = None if result.grad_norm is None else result.grad_norm.item()
        loss = loss_sum / result.count
        decision = decide(
            self.policy, window_start=start, loss=loss, grad_norm=norm, passed_over=self.progress.passed_over
        )
        if decision.action == "stop":
            raise TrainingError(Problem(f"step {step}", decision.why, _FIX))
        if decision.action == "update":
            return True
        self._decision, self.progress.passed_over = decision, decision.passed_over
        self.journal.event("passed_over", {"step": step, "why": decision.why, "ids": [list(i) for i in result.ids]})
        return False

    def _roll_back(self) -> None:
        """Go on from the newest checkpoint; where there is none yet, the window has been skipped and that is all."""
        self._hear_the_rest()
        passed_over, step = self.progress.passed_over, self.progress.step
        restored = self.saver.restore()
        if restored is None:
            return
        vars(self.progress).update(vars(restored), passed_over=passed_over)
        self.batches.close()
        self.batches = self.batches_from(restored.consumed_samples)
        self.journal.event("rolled_back", {"from_step": step, "to_step": restored.step})

    def _hear(self, told: Exchanged | None) -> None:
        """Take what all ranks know by now. Raises TrainingError when a loss was not finite."""
        if told is None:
            return
        self._save_due = self._save_due or told.save_due
        self._stop = self._stop or told.stop
        if self.peers.world.rank == 0:
            self._record(told)
        for report, loss_sum in zip(told.reports, told.loss_sums, strict=True):
            self._refuse_non_finite(report.step, loss_sum, "training loss")
            if report.grad_norm is not None and not self.window_step.scaler.is_enabled():
                self._refuse_non_finite(report.step, report.grad_norm.item(), "gradient norm")

    def _lr_at(self, consumed_samples: int) -> float:
        return lr_at(
            consumed_samples,
            peak_lr=self.plan.learning_rate.peak_lr,
            schedule=self.plan.schedule,
            effective_batch_size=self.plan.batch.effective_batch_size,
        )

    def _save_due_by_clock(self) -> bool:
        every_s = self.cadences.save_every_s
        return every_s is not None and time.perf_counter() - self._saved_at >= every_s

    def _record(self, told: Exchanged) -> None:
        """Journal each of the steps."""
        world_size, epoch = self.peers.world.world_size, self.window_step.windows.order.samples_per_epoch
        steps = []
        for report, loss_sum, waited_s in zip(told.reports, told.loss_sums, told.waited_s, strict=True):
            values = {
                "train/lr": report.lr,
                "train/step_time_s": report.time_s,
                "train/samples_per_s": report.num_samples / report.time_s,
                "train/data_wait": waited_s / world_size / report.time_s,
                "progress/samples": report.consumed_samples,
                "progress/epoch": report.consumed_samples / epoch,
            }
            if report.count:
                values["train/loss"] = loss_sum / report.count
            else:
                self.journal.event("empty_window", {"step": report.step})
            if report.grad_norm is not None:
                values["train/grad_norm"] = report.grad_norm.item()
            values |= self._passes(report.consumed_samples)
            steps.append((report.step, report.ended_at_ms, values))
        self.journal.steps(steps)

    def _passes(self, consumed_samples: int) -> dict[str, float]:
        """How often each dataset has been passed over, by its metric's name; progress/epoch says it of one alone."""
        passes = self.window_step.windows.order.passes_at(consumed_samples)
        return {f"data/{name}/passes": number for name, number in passes.items()} if len(passes) > 1 else {}

    @staticmethod
    def _refuse_non_finite(step: int, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(Problem(f"step {step}", f"the {what} is {value}", _FIX))

    def _pause_due(self) -> bool:
        """Whether there is more to do here than the next step. The same on every rank."""
        due = self._save_due or self._stop is not None or self.cadences.is_finished(self.progress)
        return due or self._evaluation_due()

    def _evaluation_due(self) -> bool:
        return self.evaluator.has_sets and self.cadences.evaluation_due(self.progress)

    def _evaluate_where_due(self) -> None:
        """Evaluate unless nothing is due or a stop is; a resume makes up for it."""
        if self._stop or not self._evaluation_due():
            return
        metrics, self._stop = self.evaluator.run(self.model, self.stop)
        if metrics is not None:
            self.progress.metrics = metrics
            self.progress.evaluated_samples = self.progress.consumed_samples
            if self.peers.world.rank == 0:
                self.journal.metrics(self.progress.step, metrics)
        self._mark = time.perf_counter()

    def _hear_the_rest(self) -> None:
        """Wait for all that ranks have reported; what cannot be trusted is neither evaluated nor saved."""
        for told in self._reports.rest():
            self._hear(told)

    def tell_what_is_known(self) -> None:
        """Journal the steps whose losses have arrived, before an end by an error. Of the last ones, about BEAT_S of
        training, no rank may know the whole loss: they have none in the journal."""
        with contextlib.suppress(Exception):
            told = self._reports.known()
            if told is not None and self.peers.world.rank == 0:
                self._record(told)

    def _save(self, *, last: bool) -> None:
        """Save between two steps: rank 0 alone, beside the steps that follow unless it is the last time."""
        self._save_due = False
        self.saver.save(self.progress, last=last)
        self._saved_at = self._mark = time.perf_counter()

    @property
    def model(self) -> torch.nn.Module:
        """The model itself, without what exchanges its gradients."""
        model = self.window_step.model
        return model.module if isinstance(model, DistributedDataParallel) else model
