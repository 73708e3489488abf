"""Loader processes tuned while a run trains: what some steps showed, told by all ranks, and the law's answer, applied.

Every rank looks after the same step, sees the same figures, and so decides alike (`tuning.loader_law`). The order of
samples hangs on none of it. What was found is kept for the run's next attempt, and for other runs like it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from typing import Any

from orchestrator.machine import num_usable_cpus
from orchestrator.talk import warn
from orchestrator.tracking.events import ADVICE, PREFETCH, TUNING, WORKERS
from orchestrator.tracking.journal import Journal
from orchestrator.tuned import Tuned, keep_tuned, read_tuned
from orchestrator.tuning.advice import advice
from orchestrator.tuning.loader_law import LEAST_GAIN, MOST_WORKERS, Decision, Limits, Phase, State, Window, decide
from orchestrator.worker.course import Course
from orchestrator.worker.data.fetch_cost import FetchCost
from orchestrator.worker.data.lanes import LiveBatches
from orchestrator.worker.data.loader import MicroBatches
from orchestrator.worker.data.room import room_of
from orchestrator.worker.failure import killed_loaders
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.tuning.step_times import StepTimes
from orchestrator.worker.world import Peers

METRICS = {WORKERS: "tuning/loader_workers", PREFETCH: "tuning/loader_prefetch"}
"""By knob."""

_FIRST_LOOK_STEPS = 8
"""Enough where most of a step is waiting."""
_MOST_WAIT_SHARE = 0.5
_STEPS_A_WORKER = 3
"""A window has as many steps at least."""


@dataclass(frozen=True)
class _Seen:
    """What one rank has seen in a window, and what it can have."""

    step_s: float
    wait_s: float
    run_s: float
    queue_s: float
    other_s: float
    spread: float
    cores: float
    most_workers: float
    most_ready: float
    switch_s: float
    """What its last switch took."""
    is_unclear: float
    """1.0 where nothing was measured, or processes of an earlier setting are still there."""

    def numbers(self) -> list[float]:
        return list(astuple(self))


@dataclass
class LoaderTuner:
    """Call `stepped` after each step, on every rank."""

    batches: LiveBatches
    peers: Peers
    journal: Journal
    applies: bool
    """Whether what the law says is done, or only told."""
    steps_left: Callable[[], int]
    most_workers: int = MOST_WORKERS
    """With more than these a process was killed, or could not be started."""
    keep: Callable[[Tuned], None] = lambda tuned: None
    """Keeps what was found for the next attempt. May raise OSError."""
    _state: State = field(init=False)
    _times: StepTimes = field(default_factory=lambda: StepTimes(wanted=_FIRST_LOOK_STEPS), init=False)
    _has_suggested: bool = field(default=False, init=False)
    _switch_s: float = field(default=0.3, init=False)
    _own: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    """Time, and what this process was on a core, at the window's beginning."""

    def __post_init__(self) -> None:
        self._state = State(self.batches.workers, self.batches.prefetch)

    def stepped(self, step: int, *, time_s: float, waited_s: float, num_micro_steps: int) -> None:
        """Take a step; where a window ends with it, hear of all ranks and decide. A collective then."""
        if self._has_suggested:
            self.batches.costs.clear()
            return
        has_enough = self._times.add(time_s, waited_s)
        if self._times.has_just_begun:
            self._begin_window()
        if not has_enough:
            return
        window, limits, is_unclear = self._told_by_all(num_micro_steps)
        is_whole = self._times.is_whole(window.step_s, at_least=_STEPS_A_WORKER * self._state.workers)
        is_plain = self._state.phase is Phase.MEASURE and window.wait_share >= _MOST_WAIT_SHARE
        if is_unclear:
            self._times.clear()
        elif is_whole or is_plain:
            self._times.clear()
            self._decide(step, window, limits, num_micro_steps)

    @property
    def is_searching(self) -> bool:
        """Whether the number of processes may change after the next window, on all ranks alike."""
        return self.applies and self._state.phase is not Phase.HOLD

    def follow(self, batches: LiveBatches) -> None:
        """Go on with another stream of the same run, with as many processes as were found to be right."""
        self.batches, state = batches, self._state
        self._times.clear()
        if (batches.workers, batches.prefetch) != (state.workers, state.prefetch) and self.applies:
            self._switch(state.workers, state.prefetch)

    def lost(self, error: BaseException) -> None:
        """Before the end by `error`: where one of these loader processes was killed, the next attempt has fewer.

        It begins with the number before this one, or half, and never has more than midway. Never raises.
        """
        workers, killed = self.batches.workers, killed_loaders(error)
        is_ours = self.batches.is_broken or bool(set(killed) & set(self.batches.pids))
        if not self.applies or workers == 0 or not killed or not is_ours:
            return
        state, before = self._state, self._state.best
        fewer = before[0] if before is not None and before[0] < workers else workers // 2
        with suppress(OSError):
            prefetch = state.prefetch_before if state.phase is Phase.VERIFY_READY else state.prefetch
            self.keep(Tuned(fewer, (fewer + workers) // 2, prefetch))

    def _begin_window(self) -> None:
        self.batches.costs.clear()
        self._own = (time.perf_counter(), time.process_time())

    def _told_by_all(self, num_micro_steps: int) -> tuple[Window, Limits, bool]:
        """The slowest rank's window, the least of what any has, and whether any cannot tell."""
        seen = [_Seen(*numbers) for numbers in self.peers.gather(self._seen(num_micro_steps).numbers())]
        slowest = max(seen, key=lambda one: one.wait_s)
        window = Window(slowest.step_s, slowest.wait_s, slowest.run_s, slowest.queue_s, slowest.other_s, slowest.spread)
        limits = Limits(
            cores=min(one.cores for one in seen),
            most_workers=int(min(one.most_workers for one in seen)),
            most_ready=min(one.most_ready for one in seen),
            switch_s=max(one.switch_s for one in seen),
            seconds_left=self.steps_left() * window.step_s,
        )
        return window, limits, any(one.is_unclear for one in seen)

    def _seen(self, num_micro_steps: int) -> _Seen:
        step_s, wait_s = self._times.mean()
        costs, (began_at, ran_s) = self.batches.costs or [FetchCost(0.0, 0.0, 0.0)], self._own
        run_s, queue_s, other_s = (num_micro_steps * statistics.fmean(each) for each in zip(*costs, strict=True))
        own = (time.process_time() - ran_s) / max(time.perf_counter() - began_at, 1e-9)
        if self._state.workers == 0:
            own -= run_s / step_s
        most_workers, most_ready = self._room()
        return _Seen(
            step_s=step_s,
            wait_s=wait_s,
            run_s=run_s,
            queue_s=queue_s,
            other_s=other_s,
            spread=_spread(costs) / math.sqrt(num_micro_steps),
            cores=num_usable_cpus() / self.peers.world.local_world_size - max(0.0, own),
            most_workers=most_workers,
            most_ready=most_ready,
            switch_s=self._switch_s,
            is_unclear=float(not self.batches.costs or self.batches.is_switching),
        )

    def _room(self) -> tuple[float, float]:
        """New processes that this rank could have, and micro-batches in them; not asked for where none are wanted,
        since it takes a while."""
        if self._state.phase is Phase.HOLD:
            return self.most_workers, math.inf
        room = room_of(self.batches, num_ranks=self.peers.world.local_world_size)
        return min(self.most_workers, room.most_by_memory(), room.most_by_shared_memory()), room.most_ready()

    def _decide(self, step: int, window: Window, limits: Limits, num_micro_steps: int) -> None:
        before = self._state
        after, decision = decide(before, window, limits)
        if decision is not None and not self.applies:
            self._tell(step, before, window, decision)
            self._has_suggested = True
            return
        self._state = after
        if after.phase is Phase.HOLD and before.phase is not Phase.HOLD:
            self._found(step, after, window, limits)
        if before.phase in (Phase.VERIFY, Phase.VERIFY_READY) and after.best == (before.workers, window):
            self._tell(step, before, window, None)
        if decision is not None:
            self._tell(step, before, window, decision)
            self._switch(decision.workers, decision.prefetch)
            ready = before.workers * before.prefetch + decision.workers * decision.prefetch
            from_before = math.ceil(ready / num_micro_steps)
            self._times = StepTimes(skips=from_before + 1, wanted=_FIRST_LOOK_STEPS)

    def _switch(self, workers: int, prefetch: int) -> None:
        """On this rank; one that cannot have so many processes keeps those that it has, and says so next time."""
        try:
            self._switch_s = self.batches.switch(workers, prefetch)
        except OSError as error:
            self.most_workers = self.batches.workers
            warn(f"{workers} loader processes cannot be had: {error}")

    def _found(self, step: int, state: State, window: Window, limits: Limits) -> None:
        """On rank 0: keep the number, and say what else would help, which nobody can change in a running job."""
        if self.peers.world.rank != 0:
            return
        if self.applies:
            with suppress(OSError):
                self.keep(Tuned(state.workers, self.most_workers, state.prefetch))
        for one in advice(state.workers, window, limits):
            self.journal.event(ADVICE, {"step": step, "advice": one})
            warn(f"step {step}: {one}")

    def _tell(self, step: int, before: State, window: Window, decision: Decision | None) -> None:
        if self.peers.world.rank != 0:
            return
        verified = before.phase is Phase.VERIFY_READY
        is_ready = verified if decision is None else decision.prefetch != before.prefetch
        knob, had = (PREFETCH, before.prefetch) if is_ready else (WORKERS, before.workers)
        detail: dict[str, Any] = {"step": step, "knob": knob, "from": had, **asdict(window)}
        if decision is None:
            assert before.best is not None
            detail |= {"kept": had, "gain": window.rate / before.best[1].rate - 1.0}
            told = f"{_gained(knob, had, detail['gain'])}: kept"
        else:
            has = decision.prefetch if is_ready else decision.workers
            detail |= {"to": has, "why": decision.why, "predicted_s": decision.predicted_s, "applied": self.applies}
            changed = f"{_IN_WORDS[knob]} {had} -> {has}"
            told = f"{changed if self.applies else f'try {knob}: {has} (now {had})'}: {decision.why}"
            if self.applies:
                self.journal.metrics(step, {METRICS[knob]: float(has)})
        self.journal.event(TUNING, detail)
        warn(f"step {step}: {told}")


_IN_WORDS = {WORKERS: "loader processes", PREFETCH: "micro-batches ready in each loader process"}


def _gained(knob: str, kept: int, gain: float) -> str:
    does = f"make steps {gain:.0%} faster" if gain >= LEAST_GAIN else "do as much as more of them"
    return f"{kept} {_IN_WORDS[knob]} {does}"


def _spread(costs: Sequence[FetchCost]) -> float:
    """Of what micro-batches take without waiting for a core: the standard deviation, as a share of the mean."""
    seconds = [cost.run_s + cost.other_s for cost in costs]
    return statistics.pstdev(seconds) / max(statistics.fmean(seconds), 1e-9)


def begin_with(inputs: Inputs, peers: Peers) -> Tuned:
    """What each rank begins with: as an earlier attempt, or a run like this one, has found it; rank 0 looks."""
    asked = Tuned(inputs.recipe.loader.workers, prefetch=inputs.recipe.loader.prefetch)
    if inputs.recipe.workers_tuning != "auto":
        return asked
    known = (peers.world.rank == 0 and read_tuned(inputs.run.tuned)) or asked
    workers, most_workers, prefetch = map(peers.from_first, astuple(known))
    return Tuned(workers, most_workers, max(1, prefetch))


def tuner_of(inputs: Inputs, batches: MicroBatches, course: Course, begun: Tuned) -> LoaderTuner | None:
    """What tunes the loader of a run; None where the recipe wants it to stay."""
    if not isinstance(batches, LiveBatches):
        return None
    return LoaderTuner(
        batches,
        course.peers,
        course.journal,
        applies=inputs.recipe.workers_tuning == "auto",
        steps_left=course.steps_left,
        most_workers=begun.most_workers,
        keep=partial(keep_tuned, inputs.run),
    )
