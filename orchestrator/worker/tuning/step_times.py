"""How long steps take, and how long they wait for data, over a window of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

LEAST_STEPS = 24
WINDOW_S = 2.0
_OUTLIER = 10.0
"""A step so many times longer than the mean of all others is none of the workload's: a machine was stopped, say."""


@dataclass
class StepTimes:
    """The steps of one window on this rank; ranks take as many, since all go by what they have told each other."""

    skips: int = 1
    """Steps that say nothing, at first."""
    wanted: int = field(default_factory=lambda: LEAST_STEPS)
    """Steps after which to look whether they are enough."""
    _steps: list[tuple[float, float]] = field(default_factory=list, init=False)
    """Seconds, and those of them that were a wait for data."""
    _enough: int = field(init=False)

    def __post_init__(self) -> None:
        self._enough = self.wanted

    @property
    def has_just_begun(self) -> bool:
        """Whether the window has its first step and no more."""
        return len(self._steps) == 1

    def add(self, time_s: float, waited_s: float) -> bool:
        """Take a step; whether there are as many as were wanted."""
        if self.skips:
            self.skips -= 1
            return False
        self._steps.append((time_s, waited_s))
        return len(self._steps) >= self._enough

    def is_whole(self, step_s: float, *, at_least: int = 0) -> bool:
        """Whether these are enough for steps that take `step_s`, on the slowest rank; else more are wanted."""
        self._enough = max(LEAST_STEPS, at_least, math.ceil(WINDOW_S / step_s))
        return len(self._steps) >= self._enough

    def mean(self) -> tuple[float, float]:
        """A step, and its wait for data, in seconds."""
        time_s, waited_s = (statistics.fmean(numbers) for numbers in zip(*without_stalls(self._steps), strict=True))
        return time_s, min(waited_s, time_s)

    def clear(self) -> None:
        """Begin the next window."""
        self._steps.clear()
        self._enough = self.wanted


def without_stalls(steps: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """`steps` (seconds, of them a wait) in their order, without those in which the machine stood still.

    Not by the median: micro-batches come in bursts, so most steps may be short, and those that wait are what counts.
    """
    by_time = sorted(steps)
    total_s = sum(time_s for time_s, _ in by_time)
    while len(by_time) > 1 and by_time[-1][0] * (len(by_time) - 1) > _OUTLIER * (total_s - by_time[-1][0]):
        total_s -= by_time.pop()[0]
    return [one for one in steps if one <= by_time[-1]]
