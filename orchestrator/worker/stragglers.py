"""Which ranks are slow, and since when: a pure function of what each rank worked on its own.

Ranks work in step, so one that is slow slows all, and the times of whole steps are alike on all of them. What differs
is a rank's own time: what it takes until it meets the others in the exchange of gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median_low
from typing import Literal

from orchestrator.tracking.stragglers import Straggler

WINDOW_S = 2.0
"""Seconds of steps that are judged together, at least: a garbage collection or a page fault is no slow rank."""
WINDOW_STEPS = 8
"""Steps in them, at least: micro-batches of sentences differ in length from step to step, and from rank to rank."""
LOOKED_AT = 5
"""Windows that are looked at together. The first one of an attempt is none of them: it loads, warms up, compiles."""
BEGINS_AT = 4
"""Slow in so many of them, a rank is named ..."""
ENDS_AT = 1
"""... until it was slow in no more than this of them: what is in between changes nothing, so nobody is told twice."""
TIMES_MEDIAN = 1.25
"""Slow is a rank whose own time is more than so many times the median's ..."""
SHARE_OF_STEP = 0.05
"""... and whose excess is more than this share of the step: less than that, nobody suffers from."""


@dataclass(frozen=True, slots=True)
class RankTime:
    """What one rank worked on its own, summed over so many steps."""

    num_steps: int = 0
    data_s: float = 0.0
    """Waiting for its micro-batches."""
    compute_s: float = 0.0
    """Forward passes, and backward passes in which no gradients are exchanged."""

    def __add__(self, other: RankTime) -> RankTime:
        return RankTime(self.num_steps + other.num_steps, self.data_s + other.data_s, self.compute_s + other.compute_s)

    def per_step(self) -> RankTime:
        """The mean of one step."""
        return RankTime(1, self.data_s / self.num_steps, self.compute_s / self.num_steps)


@dataclass(frozen=True)
class Excess:
    """What a rank was slow by, in one window."""

    times_median: float
    cost: float
    """As a share of the step."""
    data_s: float
    """Seconds a step beyond the median rank's, in waiting for data; below zero where it waited less."""
    compute_s: float


def excesses(times: Sequence[RankTime], *, shares: Sequence[int], step_s: float) -> dict[int, Excess]:
    """The ranks that were slow, by rank. `times` and `shares` are by rank, `step_s` is what a step took on all of them.

    A rank to which the plan gives more samples of a window (`shares`) may take longer in proportion. The median is the
    lower one of two, so of two ranks the slower one is named, and so are all the ranks of one of two nodes.
    """
    means = [each.per_step() for each in times]
    own = [each.data_s + each.compute_s for each in means]
    data_s, compute_s = (median_low(each) for each in ([m.data_s for m in means], [m.compute_s for m in means]))
    usual_s, usual_share = median_low(own), median_low(shares)
    found = {}
    for rank, (mean, own_s) in enumerate(zip(means, own, strict=True)):
        fair = max(1.0, shares[rank] / usual_share)
        excess_s = own_s - fair * usual_s
        if usual_s > 0 and own_s > TIMES_MEDIAN * fair * usual_s and excess_s > SHARE_OF_STEP * step_s:
            more = (mean.data_s - fair * data_s, mean.compute_s - fair * compute_s)
            found[rank] = Excess(own_s / (fair * usual_s), excess_s / step_s, *more)
    return found


@dataclass(frozen=True)
class _Judged:
    """Some steps, and who was slow in them."""

    first_step: int
    last_step: int
    slow: dict[int, Excess]


@dataclass
class _Window:
    """Steps that are to be judged together."""

    times: list[RankTime]
    first_step: int
    last_step: int = 0
    num_steps: int = 0
    seconds: float = 0.0

    def is_whole(self) -> bool:
        fewest_steps = min(self.num_steps, *(each.num_steps for each in self.times))
        return self.seconds >= WINDOW_S and fewest_steps >= WINDOW_STEPS

    def judged(self, shares: Sequence[int]) -> _Judged:
        slow = excesses(self.times, shares=shares, step_s=self.seconds / self.num_steps)
        return _Judged(self.first_step, self.last_step, slow)


@dataclass
class Stragglers:
    """Names the ranks that are slow again and again. Tell it the steps in their order."""

    shares: Sequence[int]
    """Samples of a window that each rank works on, by rank."""
    nodes: Sequence[str]
    """The node of each rank."""
    _window: _Window | None = field(default=None, init=False)
    _has_warmed_up: bool = field(default=False, init=False)
    _judged: deque[_Judged] = field(default_factory=lambda: deque(maxlen=LOOKED_AT), init=False)
    _named: dict[int, Straggler] = field(default_factory=dict, init=False)

    def add(self, times: Sequence[RankTime], *, first_step: int, last_step: int, seconds: float) -> list[Straggler]:
        """Take some steps, which took `seconds` together: the ranks that are named by now, and those no longer.

        `times`, by rank, may be of a few steps more or less: on a GPU they are known late.
        """
        window = self._window or _Window([RankTime()] * len(self.shares), first_step)
        window.times = [before + more for before, more in zip(window.times, times, strict=True)]
        window.last_step = last_step
        window.num_steps += last_step - first_step + 1
        window.seconds += seconds
        self._window = None if window.is_whole() else window
        if self._window is not None:
            return []
        if not self._has_warmed_up:
            self._has_warmed_up = True
            return []
        self._judged.append(window.judged(self.shares))
        return [told for rank in range(len(self.shares)) if (told := self._change(rank)) is not None]

    def _change(self, rank: int) -> Straggler | None:
        """The rank as it begins to be named, or as it ends; None where nothing has changed."""
        slow = [window for window in self._judged if rank in window.slow]
        if rank not in self._named and len(slow) >= BEGINS_AT:
            self._named[rank] = self._straggler(rank, slow)
            return self._named[rank]
        if rank in self._named:
            last = max((window.last_step for window in slow), default=0)
            self._named[rank] = replace(self._named[rank], until_step=max(last, self._named[rank].until_step or 0))
            if len(slow) <= ENDS_AT:
                return self._named.pop(rank)
        return None

    def _straggler(self, rank: int, slow: Sequence[_Judged]) -> Straggler:
        """With the means of the windows in which it was slow."""
        found = [window.slow[rank] for window in slow]
        by_data = sum(each.data_s for each in found) >= sum(each.compute_s for each in found)
        slow_at: Literal["data", "compute"] = "data" if by_data else "compute"
        times_median, cost = fmean(each.times_median for each in found), fmean(each.cost for each in found)
        since = slow[0].first_step
        return Straggler(rank, self.nodes[rank], slow_at, round(times_median, 3), round(cost, 4), since)
