"""Precisions compared in the windows that a run trains on anyway: what all ranks together have seen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from functools import partial

from orchestrator.pulse import Phase
from orchestrator.talk import warn
from orchestrator.tuning.amp_law import NOT_COMPUTED, Agreement, Lower
from orchestrator.worker.course import Course
from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.failure import one_line
from orchestrator.worker.tuning.gradients import Comparison
from orchestrator.worker.window_step import WindowStep, nothing_around

_NUM_WINDOWS = 2
"""Of which each rank compares the first micro-batch."""


@dataclass
class ComparedWindows:
    """Call `begin`, then `stepped` after each step until it gives something; on every rank."""

    comparison: Comparison
    window_step: WindowStep
    course: Course
    _seen: list[Agreement] = field(default_factory=list, init=False)
    """By this rank."""
    _seen_at: int = field(default=-1, init=False)
    """The step whose window this rank compared in last."""
    _num_windows: int = field(default=0, init=False)

    def begin(self, lower: Lower) -> None:
        """Compare `lower` with the recipe's precision in the next windows."""
        self._num_windows = 0
        self._seen.clear()
        self.window_step.around_micro_step = partial(self._compared, lower)

    def end(self) -> None:
        """Compare no more."""
        self.window_step.around_micro_step = nothing_around

    def stepped(self) -> Agreement | None:
        """The worst that any rank has seen, when that was enough; a collective then. None: go on.

        Where no rank had a micro-batch to look at, the next windows are looked at too.
        """
        self._num_windows += 1
        if self._num_windows < _NUM_WINDOWS:
            return None
        mine = max(self._seen, key=lambda one: one.badness, default=Agreement())
        told = self.course.peers.gather([*(float(number) for number in astuple(mine)), float(len(self._seen))])
        if not any(one[-1] for one in told):
            return None
        self.end()
        all_seen = [Agreement(gap, cosine, ratio, int(layer)) for gap, cosine, ratio, layer, _ in told]
        return max(all_seen, key=lambda one: one.badness)

    @contextlib.contextmanager
    def _compared(self, lower: Lower, batch: MicroBatch, step: int) -> Iterator[None]:
        """Around a micro-step: before the first one of a window that has samples, compare."""
        if batch.num_samples and step != self._seen_at:
            self._seen_at = step
            try:
                with self.window_step.pulse.during(Phase.START, learns=False):
                    self._seen.append(self.comparison.agreement(batch, lower, self._weight_of(batch)))
            except Exception as error:
                self._seen.append(NOT_COMPUTED)
                warn(f"step {step}: {lower}: {one_line(error)}")
        yield

    def _weight_of(self, batch: MicroBatch) -> float:
        """What training weighs its loss by, as far as this window is like the others."""
        samples = self.course.plan.batch.effective_batch_size
        counts = self.window_step.intake.counts_of(batch)
        return self.course.peers.world.world_size * batch.num_samples / (samples * max(1, counts))
