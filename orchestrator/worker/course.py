"""A run between its steps: what is due there, what the ranks have told each other, and what is journaled of it.

The package's own loop and a user's loop with a session go by it. Every decision is the same on every rank.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from orchestrator.errors import NonFiniteError, Problem
from orchestrator.plan.plan import Plan
from orchestrator.plan.schedule import lr_at
from orchestrator.pulse import Phase
from orchestrator.talk import warn
from orchestrator.tracking.events import DATA_WAIT, EXCHANGE, STEP_TIME
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.records import StepValues
from orchestrator.tracking.stragglers import EVENT
from orchestrator.worker.deadline import Deadline
from orchestrator.worker.own_time import OwnTime
from orchestrator.worker.preemption import StopRequest, agreed_stop
from orchestrator.worker.progress import Cadences, Progress
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.reports import Exchanged, Reports, StepReport
from orchestrator.worker.stragglers import Stragglers
from orchestrator.worker.window_step import WindowResult
from orchestrator.worker.windows import Windows
from orchestrator.worker.world import Peers

NON_FINITE_FIX = "lower optimizer.lr, set optimizer.clip_norm, or look at this step's data"

Evaluate = Callable[[StopRequest], tuple[dict[str, float] | None, str | None]]
"""Gives the metrics, None where it was cut short, and what asks for the end on any rank."""


class Checkpoints(Protocol):
    """What a run is begun from and saved to: a Saver, or nothing at all for a run that is only looked at."""

    @property
    def scaler(self) -> torch.amp.GradScaler: ...

    def restore(self) -> Progress | None: ...

    def save(self, progress: Progress, *, last: bool) -> None: ...

    def would_be_best(self, progress: Progress) -> bool: ...


@dataclass
class Course:
    """Call `begin` once; then, as long as `goes_on`, make a step and tell it by `made`. On every rank."""

    plan: Plan
    cadences: Cadences
    progress: Progress
    windows: Windows
    journal: Journal
    peers: Peers
    stop: StopRequest
    saver: Checkpoints
    journal_ids: bool
    evaluate: Evaluate | None = None
    """None where there is nothing to evaluate on."""
    show: Callable[[int], None] | None = None
    """Called on rank 0 after an evaluation, with the step: something to look at."""
    pulse: Pulse = field(default_factory=Pulse)
    deadline: Deadline = field(default_factory=Deadline)
    own_time: OwnTime = field(default_factory=OwnTime)
    exposed_s: Callable[[], float | None] = lambda: None
    """As `worker.exchange.Exchange` has it."""
    nodes: Sequence[str] = ()
    """The node of each rank."""
    before_save: Callable[[], None] = lambda: None
    """Called on every rank when a checkpoint is due. May raise NonFiniteError, alike on every rank."""
    stopped_by: str | None = field(default=None, init=False)
    """The signal that all ranks know to have been seen by one of them, or DEADLINE."""
    save_due: bool = field(default=False, init=False)
    """A checkpoint is wanted before the next step."""
    ends_early: bool = field(default=False, init=False)
    """The run is to end before the next step, and to count as done."""
    _reports: Reports = field(init=False)
    _stragglers: Stragglers = field(init=False)
    _exchange_s: float | None = field(default=None, init=False)
    """What was journaled of it last."""
    _mark: float = field(default=0.0, init=False)
    _saved_at: float = field(default=0.0, init=False)

    def begin(self) -> None:
        """The clock starts; what is there by now stays, and is nothing to collect any more. A collective."""
        gc.collect()
        gc.freeze()
        self.pulse.enter(Phase.START, self.progress.step)
        self.deadline.begin(self.pulse, leads=self.peers.world.rank == 0)
        self.stop.time_is_up = self.deadline.is_near
        self._reports = Reports(self.peers, self.stop, self._save_due_by_clock, self.own_time, self.exposed_s)
        self._stragglers = Stragglers(self.windows.samples_by_rank(), self.nodes)
        self.stopped_by = agreed_stop(self.peers.sum(self.stop.as_votes()))
        self._saved_at = self._mark = time.perf_counter()

    def goes_on(self) -> bool:
        """Evaluate, and save, where that is due; whether there is another step to make. `stopped_by` says why not."""
        if not self._pause_due():
            return True
        self.hear_the_rest()
        self._evaluate_where_due()
        ended = self._is_finished() and not self._evaluation_due()
        if ended:
            self.stopped_by = None
        if ended or self.save_due or self.stopped_by:
            self._save(last=ended or self.stopped_by is not None)
        return not ended and self.stopped_by is None

    def lr(self) -> float:
        """The learning rate of the next step."""
        return lr_at(
            self.progress.consumed_samples,
            peak_lr=self.plan.learning_rate.peak_lr,
            schedule=self.plan.schedule,
            effective_batch_size=self.plan.batch.effective_batch_size,
        )

    def made(self, result: WindowResult, *, lr: float, waited_s: float) -> float:
        """Take the result of a step; what an earlier one came to on all ranks is heard of meanwhile.

        Returns the seconds that it took, without what was due before it. Raises NonFiniteError when the loss of that
        earlier one was not finite. An error may come between any two lines, from a signal: a step that counts is
        among the reports before it counts.
        """
        progress = self.progress
        before = progress.consumed_samples
        num_samples = self.windows.size_at(before)
        now = time.perf_counter()
        time_s, self._mark = now - self._mark, now
        report = StepReport(
            step=progress.step + 1,
            consumed_samples=before + num_samples,
            num_samples=num_samples,
            count=result.count,
            lr=lr,
            loss_sum=result.loss_sum,
            grad_norm=result.grad_norm,
            waited_s=waited_s,
            time_s=time_s,
            ended_at_ms=time.time_ns() // 1_000_000,
        )
        self._reports.add(report)
        vars(progress).update(step=report.step, consumed_samples=report.consumed_samples)  # at once, or not at all
        self.pulse.stepped(progress.step)
        if self.journal_ids:
            self.journal.window(progress.step, result.ids)
        self.deadline.stepped(time_s)
        for told in self._reports.exchange():
            self._hear(told)
        self.save_due = self.save_due or self.cadences.save_due(before, progress.consumed_samples)
        return time_s

    def went_back(self) -> None:
        """A checkpoint was loaded: the time for that is none of the next step's."""
        self._mark = time.perf_counter()

    def steps_left(self) -> int:
        """Steps from here to the planned end of the run."""
        left = self.windows.total_samples - self.progress.consumed_samples
        return -(-left // self.windows.effective_batch_size)

    def hear_the_rest(self) -> None:
        """Wait for all that ranks have reported; what cannot be trusted is neither evaluated nor saved."""
        for told in self._reports.rest():
            self._hear(told)

    def tell_what_is_known(self) -> None:
        """Journal the steps that have not been, before an end by an error. Of the last ones, about BEAT_S of training,
        no rank of several may know the whole loss: they are in the journal without one."""
        has_begun = self._mark > 0
        if self.peers.world.rank != 0 or not has_begun:
            return
        with contextlib.suppress(Exception):
            for told in self._reports.known():
                self._record(told)
        untold = self._reports.untold()
        if untold:
            self.journal.steps([(one.step, one.ended_at_ms, self._known_alone(one)) for one in untold])

    def _hear(self, told: Exchanged) -> None:
        """Take what all ranks know by now. Raises NonFiniteError when a loss was not finite."""
        self.save_due = self.save_due or told.save_due
        self.stopped_by = self.stopped_by or told.stop
        if self.peers.world.rank == 0:
            self._record(told)
        self._reports.heard()
        for report, loss_sum in zip(told.reports, told.loss_sums, strict=True):
            _refuse_non_finite(report.step, loss_sum, "training loss")
            if report.grad_norm is not None and not self.saver.scaler.is_enabled():
                _refuse_non_finite(report.step, report.grad_norm.item(), "gradient norm")

    def _save_due_by_clock(self) -> bool:
        every_s = self.cadences.save_every_s
        return every_s is not None and time.perf_counter() - self._saved_at >= every_s

    def _record(self, told: Exchanged) -> None:
        """Journal each of the steps."""
        world_size, steps = self.peers.world.world_size, list[StepValues]()
        for report, loss_sum, waited_s in zip(told.reports, told.loss_sums, told.waited_s, strict=True):
            values = self._known_alone(report) | {DATA_WAIT: waited_s / world_size / report.time_s}
            if report.count:
                values["train/loss"] = loss_sum / report.count
            else:
                self.journal.event("empty_window", {"step": report.step})
            if report.grad_norm is not None:
                values["train/grad_norm"] = report.grad_norm.item()
            if report is told.reports[-1] and told.exchange_s not in (None, self._exchange_s):
                values[EXCHANGE] = self._exchange_s = told.exchange_s
            steps.append((report.step, report.ended_at_ms, values))
        self.journal.steps(steps)
        if told.reports and told.own_times:
            self._name_stragglers(told)

    def _name_stragglers(self, told: Exchanged) -> None:
        """Journal, and say in this rank's log, which ranks are slow by now, and which are no longer."""
        first, last = told.reports[0].step, told.reports[-1].step
        seconds = sum(report.time_s for report in told.reports)
        for one in self._stragglers.add(told.own_times, first_step=first, last_step=last, seconds=seconds):
            self.journal.event(EVENT, one.as_detail())
            warn(one.sentence())

    def _known_alone(self, report: StepReport) -> dict[str, float]:
        """What a rank can say of a step without the others."""
        return {
            "train/lr": report.lr,
            STEP_TIME: report.time_s,
            "train/samples_per_s": report.num_samples / report.time_s,
            "progress/samples": report.consumed_samples,
            "progress/epoch": report.consumed_samples / self.windows.order.samples_per_epoch,
            **self._passes(report.consumed_samples),
        }

    def _passes(self, consumed_samples: int) -> dict[str, float]:
        """How often each dataset has been passed over, by its metric's name; progress/epoch says it of one alone."""
        order = self.windows.order
        if len(order.mixture.shares) < 2:
            return {}
        return {f"data/{name}/passes": number for name, number in order.passes_at(consumed_samples).items()}

    def _is_finished(self) -> bool:
        return self.ends_early or self.cadences.is_finished(self.progress)

    def _pause_due(self) -> bool:
        """Whether there is more to do here than the next step."""
        return self.save_due or self.stopped_by is not None or self._is_finished() or self._evaluation_due()

    def _evaluation_due(self) -> bool:
        return self.evaluate is not None and self.cadences.evaluation_due(self.progress)

    def _evaluate_where_due(self) -> None:
        """Evaluate unless nothing is due or a stop is; a resume makes up for it."""
        if self.evaluate is None or self.stopped_by or not self._evaluation_due():
            return
        with self.pulse.during(Phase.EVALUATION), self.deadline.shared(self.peers):
            metrics, self.stopped_by = self.evaluate(self.stop)
            if metrics is not None:
                self._take_metrics(metrics)
        self._mark = time.perf_counter()

    def _take_metrics(self, metrics: dict[str, float]) -> None:
        """Note what an evaluation gave, and whether it is to be saved; the other ranks wait for what rank 0 shows."""
        self.progress.metrics = metrics
        self.progress.evaluated_samples = self.progress.consumed_samples
        if self.peers.world.rank == 0:
            self.journal.metrics(self.progress.step, metrics)
            if self.show is not None:
                self.show(self.progress.step)
        is_best = self.peers.from_first(self.saver.would_be_best(self.progress))
        self.save_due = self.save_due or bool(is_best)

    def _save(self, *, last: bool) -> None:
        """Save between two steps: rank 0 alone, beside the steps that follow unless it is the last time."""
        self.before_save()
        self.save_due = False
        self.saver.save(self.progress, last=last)
        self._saved_at = self._mark = time.perf_counter()


def _refuse_non_finite(step: int, value: float, what: str) -> None:
    if not math.isfinite(value):
        raise NonFiniteError(Problem(f"step {step}", f"the {what} is {value}", NON_FINITE_FIX))
