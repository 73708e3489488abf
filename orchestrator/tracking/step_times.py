"""What rank 0's journal has of a run's steps: how long each took, which count, which were made again, who was slow.

Standard library only. A journal is read once and from where the last reading ended, so time grows no more than linearly
with the run: about a second for 150,000 steps, and 24 bytes of memory a step.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.files import read_records
from orchestrator.tracking.events import STEP_TIME
from orchestrator.tracking.journal import JournalFile, journal_files
from orchestrator.tracking.records import each_step
from orchestrator.tracking.stragglers import Straggler, straggler_of


@dataclass
class AttemptSteps:
    """The steps that one attempt made, as far as they are journaled; times are in Unix milliseconds."""

    first: int
    last: int
    first_ended_ms: int
    last_ended_ms: int
    num_made_again: int = 0
    """Steps that later attempts made again."""
    slow: dict[tuple[int, int], Straggler] = field(default_factory=dict)
    """Ranks that were slow in it, by rank and first step, as they were told of last."""


class StepTimes:
    """The steps of a run. `read` brings it up to date; a step that was made twice counts as it was made last.

    A rank that is killed takes some steps with it that no journal has, about a quarter of a second: they do not count.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._forget()

    def _forget(self) -> None:
        self.by_attempt: dict[int, AttemptSteps] = {}
        self._offsets: dict[Path, int] = {}
        self._newest = -1
        self._steps, self._seconds, self._attempts = array("q"), array("d"), array("q")

    @property
    def productive_s(self) -> float:
        """Seconds in steps that count, each step once."""
        return math.fsum(self._seconds)

    def read(self) -> None:
        """Take what the journal has got since the last time.

        Where an earlier attempt has got more after a later one was read, which a slow file system can do, all is read
        anew: what counts hangs on the order.
        """
        files = [file for file in journal_files(self._run_dir) if file.rank == 0]
        if any(file.attempt < self._newest and self._has_grown(file) for file in files):
            self._forget()
        for file in files:
            begin = self._offsets.get(file.path, 0)
            for record, offset in read_records(file.path, begin):
                self._offsets[file.path] = offset
                for step, time_ms, seconds in _steps_of(record):
                    self._newest = file.attempt
                    self._take(file.attempt, step, time_ms, seconds)
                if file.attempt in self.by_attempt and (slow := straggler_of(record)) is not None:
                    self.by_attempt[file.attempt].slow[slow.rank, slow.since_step] = slow

    def _has_grown(self, file: JournalFile) -> bool:
        return next(read_records(file.path, self._offsets.get(file.path, 0)), None) is not None

    def _take(self, attempt: int, step: int, time_ms: int, seconds: float) -> None:
        """Add a step; what was made of this step and of later ones before it does not count any more."""
        while self._steps and self._steps[-1] >= step:
            self._steps.pop()
            self._seconds.pop()
            owner = self._attempts.pop()
            if owner != attempt:
                self.by_attempt[owner].num_made_again += 1
        self._steps.append(step)
        self._seconds.append(seconds)
        self._attempts.append(attempt)
        told = self.by_attempt.setdefault(attempt, AttemptSteps(step, step, time_ms, time_ms))
        told.last, told.last_ended_ms = step, time_ms


def _steps_of(record: dict[str, Any] | None) -> Iterator[tuple[int, int, float]]:
    """(step, Unix milliseconds of its end, seconds it took) of each optimizer step in a record."""
    if record is None or STEP_TIME not in (record.get("values") or ()):
        return
    for each in each_step(record):
        step, time_ms = each.get("step"), each.get("time_ms")
        seconds = each.get("values", {}).get(STEP_TIME)
        if isinstance(step, int) and isinstance(time_ms, int) and isinstance(seconds, int | float):
            yield step, time_ms, float(seconds)
