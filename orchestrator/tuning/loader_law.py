"""How many loader processes a rank should have, and how much each has ready, by what was seen so far: predict, apply,
verify, keep or revert. Pure.

The law knows a step by two numbers: how long ranks waited for data, and how long a loader process takes for a step's
micro-batches. More processes help where ranks wait, as long as the cores that they ask for are there. It never trusts
its own prediction: what does not make steps 3 % shorter is taken back, unless it does as much with fewer processes.
Where there are enough for the mean micro-batch, and ranks wait for some that take much longer, more ready ones help.
Ranks that all see the same window decide alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

IDLE_SHARE = 0.05
"""Waiting for data less than this share of a step is no reason to change anything."""
LEAST_GAIN = 0.03
"""What a change has to make steps shorter by, or it is taken back."""
MOST_SWITCHES = 8
"""In a run, ways back included; after that the setting stays."""
MOST_WORKERS = 32
MOST_PREFETCH = 16

_HEADROOM = 1.15
"""Processes beyond those that would just suffice: samples take unequal times."""
_FASTER_BY = 8
"""How many times more processes are tried at once: each asks for memory, and none is verified yet."""
_DEEPER_BY = 4
"""How many times more micro-batches a process is to have ready, where some take much longer than others."""
_UNEVEN = 0.5
"""A spread of what micro-batches take, from which on waits may come of it."""
_FAR = 4
"""When so many processes more make it worse, the middle may make it better."""
_NEW_RATE, _NEW_SHARE, _NEW_WORK = 0.10, 0.05, 0.5
"""A workload whose steps' rate, share of waiting or work has changed by so much is measured anew,"""
_TWICE = 2
"""when so many windows in a row say so."""
_CERTAINTY, _WORTH = 0.7, 3.0
"""A change is worth it when the gain that is left, by this share of what is predicted, is so many times its cost."""


class Phase(Enum):
    """What the next window is for."""

    MEASURE = "measure"
    VERIFY = "verify"
    VERIFY_READY = "verify_ready"
    """Whether more micro-batches ready make steps faster."""
    HOLD = "hold"


@dataclass(frozen=True)
class Window:
    """The mean step of some steps with one setting: the slowest rank's numbers, the same on every rank."""

    step_s: float
    wait_s: float
    """Of a step, waiting for data."""
    run_s: float
    """What a loader process is on a core for a step's micro-batches; with none, what the rank itself is."""
    queue_s: float
    """What it waits for a core meanwhile."""
    other_s: float
    """What it waits for something else: a disk, a network."""
    spread: float = 0.0
    """What a step's micro-batches take a process: its standard deviation, as a share of the mean."""

    @property
    def wait_share(self) -> float:
        return self.wait_s / self.step_s

    @property
    def rate(self) -> float:
        """Steps a second."""
        return 1.0 / self.step_s

    @property
    def rest_s(self) -> float:
        """Of a step, what is no wait for data."""
        return max(self.step_s - self.wait_s, 1e-6)

    @property
    def work_s(self) -> float:
        """What a process that finds a core at once takes for a step's micro-batches."""
        return max(self.run_s + self.other_s, 1e-9)


@dataclass(frozen=True)
class Limits:
    """What is left to a run, and what one rank may have; the smallest of all ranks."""

    cores: float
    """For its loader processes: without the one that it needs itself."""
    most_workers: int = MOST_WORKERS
    """New ones that there is room for, in memory and shared memory, beside those that are there."""
    most_ready: float = math.inf
    """Micro-batches that there is room for beside those that are there, in all of a rank's processes together."""
    switch_s: float = 0.3
    """What a switch costs, as learnt from the last one."""
    seconds_left: float = math.inf


@dataclass(frozen=True)
class Decision:
    """What to have from now on, and why; `predicted_s` is the step that is expected, None where one is taken back."""

    workers: int
    prefetch: int
    why: str
    predicted_s: float | None = None


@dataclass(frozen=True)
class State:
    """What the law remembers."""

    workers: int
    prefetch: int = 2
    """Micro-batches that each process has ready."""
    phase: Phase = Phase.MEASURE
    best: tuple[int, Window] | None = None
    """The best number of processes so far, and what was seen with it."""
    prefetch_before: int = 0
    """While more ready ones are verified: the way back."""
    most_prefetch: int = MOST_PREFETCH
    """More than these ready did not help."""
    ceiling: int = MOST_WORKERS
    """What has been tried above this did not help."""
    num_new: int = 0
    """Windows in a row that look like another workload."""
    tried: frozenset[int] = frozenset()
    """With this workload; none is tried twice, but for the way back."""
    num_switches: int = 0


def decide(state: State, window: Window, limits: Limits) -> tuple[State, Decision | None]:
    """The state after a window with `state.workers` processes, and what to change before the next one."""
    if state.phase is Phase.HOLD:
        return _hold(state, window) if _may_try(state) else (state, None)
    if state.phase is Phase.VERIFY:
        return _verify(state, window, limits)
    if state.phase is Phase.VERIFY_READY:
        return _verify_ready(state, window, limits)
    return _measure(state, window, limits)


def _may_try(state: State) -> bool:
    """Each trial may need a way back."""
    return state.num_switches <= MOST_SWITCHES - 2


def predicted_step_s(workers: int, window: Window, limits: Limits) -> float:
    """A step with so many processes, if nothing but their number changes."""
    if workers == 0:
        return window.rest_s + window.work_s
    return max(window.rest_s, window.work_s / workers, window.run_s / usable_cores(limits))


def enough(window: Window, limits: Limits) -> int:
    """The fewest processes with which ranks wait for nothing but the cores, and some more."""
    return max(1, math.ceil(_HEADROOM * window.work_s / max(window.rest_s, window.run_s / usable_cores(limits))))


def usable_cores(limits: Limits) -> float:
    """What loader processes of a rank get: never nothing, since they run all the same."""
    return max(0.5, limits.cores)


def _measure(state: State, window: Window, limits: Limits) -> tuple[State, Decision | None]:
    state = replace(state, best=(state.workers, window), tried=state.tried | {state.workers})
    if (deeper := _with_more_ready(state, window, limits)) is not None:
        return _switched(replace(state, prefetch_before=state.prefetch), Phase.VERIFY_READY, deeper)
    wanted, why = _wanted(state, window, limits) if _may_try(state) else (state.workers, "")
    if wanted in state.tried:
        return replace(state, phase=Phase.HOLD), None
    predicted_s = predicted_step_s(wanted, window, limits)
    gain = LEAST_GAIN if 0 < wanted < state.workers else 1.0 - predicted_s / window.step_s
    if not _is_worth_it(gain, limits):
        return replace(state, phase=Phase.HOLD), None
    return _switched(state, Phase.VERIFY, Decision(wanted, state.prefetch, why, predicted_s))


def _is_worth_it(gain: float, limits: Limits) -> bool:
    return _CERTAINTY * gain * limits.seconds_left >= _WORTH * limits.switch_s


def _with_more_ready(state: State, window: Window, limits: Limits) -> Decision | None:
    """More micro-batches ready in each process, where these would keep up if all micro-batches took the mean time.

    They bridge the time that a slow one takes: it was begun as many steps ahead as micro-batches are ready.
    """
    workers = state.workers
    is_uneven = window.wait_share > IDLE_SHARE and window.spread >= _UNEVEN
    if workers == 0 or not is_uneven or workers < enough(window, limits) or not _may_try(state):
        return None
    prefetch = int(min(_DEEPER_BY * state.prefetch, state.most_prefetch, limits.most_ready / workers))
    predicted_s = predicted_step_s(workers, window, limits)
    gain = 1.0 - predicted_s / window.step_s
    if prefetch <= state.prefetch or gain < LEAST_GAIN or not _is_worth_it(gain, limits):
        return None
    why = f"{window.wait_share:.0%} of a step is waiting for data, and some take much longer than others"
    return Decision(workers, prefetch, why, predicted_s)


def _wanted(state: State, window: Window, limits: Limits) -> tuple[int, str]:
    """So many processes as this window asks for, and why."""
    workers = state.workers
    without_s = predicted_step_s(0, window, limits)
    if 0 not in state.tried and without_s < window.step_s * (1 - LEAST_GAIN):
        return 0, f"fetching takes {window.work_s / window.step_s:.0%} of a step: it may cost less without processes"
    if window.wait_share <= IDLE_SHARE:
        return workers, ""
    wanted = enough(window, limits)
    if wanted < workers:
        has_room = wanted <= limits.most_workers
        return (wanted, f"{wanted} processes would do as much as {workers}") if has_room else (workers, "")
    most = min(limits.most_workers, state.ceiling, MOST_WORKERS, _FASTER_BY * max(1, workers))
    wanted = min(max(wanted, workers + 1), most)
    return max(wanted, workers), f"{window.wait_share:.0%} of a step is waiting for data"


def _verify(state: State, window: Window, limits: Limits) -> tuple[State, Decision | None]:
    """Keep what was tried, and look at once whether more would help; or go back."""
    assert state.best is not None
    workers, before = state.best
    gain = window.rate / before.rate - 1.0
    if gain >= LEAST_GAIN or (0 < state.workers < workers and gain >= -LEAST_GAIN / 2):
        return _measure(state, window, limits)
    state = replace(state, ceiling=max(workers, 1) if state.workers > workers else state.ceiling)
    is_highest, between = state.workers > max(state.tried), (state.workers + workers) // 2
    state = replace(state, tried=state.tried | {state.workers})
    has_room = between <= limits.most_workers
    if is_highest and state.workers >= workers + _FAR and gain < -LEAST_GAIN and has_room and _may_try(state):
        why = f"{state.workers} processes make steps {-gain:.0%} slower than {workers}: trying between the two"
        return _switched(state, Phase.VERIFY, Decision(between, state.prefetch, why))
    why = f"{state.workers} processes gain {gain:.1%}, less than {LEAST_GAIN:.0%}: back to {workers}"
    following = Phase.MEASURE if state.workers == 0 else Phase.HOLD
    return _switched(state, following, Decision(workers, state.prefetch, why))


def _verify_ready(state: State, window: Window, limits: Limits) -> tuple[State, Decision | None]:
    """Keep the ready micro-batches that were tried, or go back; then see whether another number of processes helps."""
    assert state.best is not None
    gain = window.rate / state.best[1].rate - 1.0
    if gain >= LEAST_GAIN:
        return _measure(state, window, limits)
    before = state.prefetch_before
    why = f"{state.prefetch} ready in each process gain {gain:.1%}, less than {LEAST_GAIN:.0%}: back to {before}"
    state = replace(state, most_prefetch=before)
    return _switched(state, Phase.MEASURE, Decision(state.workers, before, why))


def _hold(state: State, window: Window) -> tuple[State, Decision | None]:
    """Wait for another workload."""
    assert state.best is not None
    before, waits = state.best[1], window.wait_share > IDLE_SHARE
    is_new = (
        (waits and window.wait_share > before.wait_share + _NEW_SHARE)
        or (waits and abs(window.rate / before.rate - 1.0) > _NEW_RATE)
        or abs(window.work_s / before.work_s - 1.0) > _NEW_WORK
    )
    if not is_new:
        return replace(state, num_new=0), None
    if state.num_new + 1 < _TWICE:
        return replace(state, num_new=state.num_new + 1), None
    return State(state.workers, state.prefetch, num_switches=state.num_switches), None


def _switched(state: State, phase: Phase, decision: Decision) -> tuple[State, Decision]:
    state = replace(state, workers=decision.workers, prefetch=decision.prefetch, phase=phase, num_new=0)
    return replace(state, num_switches=state.num_switches + 1), decision
