"""The law of the loader processes, on single windows and on thousands of made-up workloads."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tuning.loader_law import (
    LEAST_GAIN,
    MOST_PREFETCH,
    MOST_SWITCHES,
    Limits,
    Phase,
    State,
    Window,
    decide,
    enough,
    predicted_step_s,
)
from tests.tuning.plants import Plant, random_plant

STARVED = Window(step_s=0.1, wait_s=0.09, run_s=0.01, queue_s=0.0, other_s=0.19)
"""Two processes bring a step's data, which takes each of them 0.2 s; the rank itself needs 0.01 s."""
BUSY = Window(step_s=0.1, wait_s=0.002, run_s=0.05, queue_s=0.0, other_s=0.05)
MANY_CORES = Limits(cores=16)
UNEVEN = Window(step_s=0.015, wait_s=0.005, run_s=0.001, queue_s=0.0, other_s=0.025, spread=1.8)
"""Four processes bring a step's data in 0.0065 s each on the mean, and the rank itself needs 0.01 s."""
NUM_STEPS, CHANGE = 3000, 1000
STARTS = (0, 2, 8, 16)


@dataclass
class Course:
    """A run under the law."""

    plant: Plant
    settings: list[int]
    """The processes at first, and after each switch."""
    seconds: float
    best_s: float
    """What the best fixed setting would have taken."""

    @property
    def quality(self) -> float:
        """Of the speed at the end, as a share of the best fixed setting's."""
        return self.plant.best_s / self.plant.step_s(self.settings[-1])


def course(
    seed: int, start: int, *, total_steps: int = NUM_STEPS, change: Callable[[Plant], Plant] | None = None
) -> Course:
    """Windows of some steps, and a switch at 0.3 s where the law wants one. The workload may `change` on the way."""
    plant, chance, state = random_plant(seed), random.Random(-seed), State(start)
    settings, seconds, best_s, num_steps = [start], 0.0, 0.0, 0
    while num_steps < total_steps:
        if change is not None and num_steps >= CHANGE:
            plant, change = change(plant), None
        window = plant.window(state.workers, chance)
        size = 8 if window.wait_share > 0.5 else max(24, 3 * state.workers)
        num_steps += size
        seconds += size * plant.step_s(state.workers)
        best_s += size * plant.best_s
        limits = Limits(cores=plant.cores, seconds_left=(total_steps - num_steps) * window.step_s)
        state, decision = decide(state, window, limits)
        if decision is not None:
            settings.append(decision.workers)
            seconds += limits.switch_s
    return Course(plant, settings, seconds, best_s)


def test_nearly_every_workload_ends_nearly_as_fast_as_its_best_fixed_setting() -> None:
    """Whatever it began with: nothing, too few, or far too many."""
    runs = [course(seed, STARTS[seed % len(STARTS)]) for seed in range(3000)]
    for start in STARTS:
        assert mean(run.quality >= 0.95 for run in runs if run.settings[0] == start) >= 0.95
    assert mean(run.quality for run in runs) >= 0.98
    assert mean(run.best_s / run.seconds for run in runs) >= 0.97, "the search included"
    assert mean(len(run.settings) - 1 for run in runs) <= 3


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_workload_that_changes_on_the_way_is_met_again(factor: float) -> None:
    """Loading becomes five times cheaper, or dearer; there is time to make up for it."""

    def other(plant: Plant) -> Plant:
        return replace(plant, cpu_s=plant.cpu_s * factor, io_s=plant.io_s * factor)

    runs = [course(seed, 2, total_steps=8000, change=other) for seed in range(500)]
    assert mean(run.quality >= 0.95 for run in runs) >= 0.95
    assert mean(run.quality for run in runs) >= 0.98


def test_no_setting_is_tried_twice_and_none_oscillates() -> None:
    """A setting comes again as the way back alone, from the trial after it or the one after that."""
    for seed in range(1000):
        settings = course(seed, STARTS[seed % len(STARTS)]).settings
        assert len(settings) - 1 <= MOST_SWITCHES
        for at, setting in enumerate(settings):
            if setting in settings[:at]:
                assert setting in settings[max(0, at - 3) : at - 1], settings


def test_a_rank_that_waits_gets_as_many_processes_as_its_step_asks_for() -> None:
    state, decision = decide(State(2), STARVED, MANY_CORES)
    assert decision is not None and state.phase is Phase.VERIFY
    assert (decision.workers, decision.why) == (16, "90% of a step is waiting for data")
    assert decision.predicted_s == pytest.approx(0.2 / 16) and enough(STARVED, MANY_CORES) == 23


def test_what_does_not_wait_is_let_alone() -> None:
    state, decision = decide(State(2), BUSY, MANY_CORES)
    assert decision is None and state.phase is Phase.HOLD and state.workers == 2


def test_a_gain_is_kept_and_anything_less_is_taken_back() -> None:
    trial, _ = decide(State(2), STARVED, MANY_CORES)
    faster = replace(STARVED, step_s=STARVED.step_s / (1 + LEAST_GAIN + 0.001), wait_s=0.001)
    kept, decision = decide(trial, faster, MANY_CORES)
    assert decision is None and kept.phase is Phase.HOLD and kept.best == (16, faster)
    same = replace(STARVED, step_s=STARVED.step_s / (1 + LEAST_GAIN - 0.001))
    back, decision = decide(trial, same, MANY_CORES)
    assert decision is not None and (decision.workers, back.phase) == (2, Phase.HOLD)
    assert decision.why == "16 processes gain 2.9%, less than 3%: back to 2"


def test_far_too_many_are_halved_once_before_the_way_back() -> None:
    trial, _ = decide(State(2), STARVED, MANY_CORES)
    slower = replace(STARVED, step_s=STARVED.step_s * 1.2)
    halved, decision = decide(trial, slower, MANY_CORES)
    assert decision is not None and decision.workers == 9
    assert decision.why == "16 processes make steps 17% slower than 2: trying between the two"
    assert decide(halved, slower, MANY_CORES)[0].workers == 2


def test_where_some_samples_take_much_longer_more_are_ready_before_other_processes_are_tried() -> None:
    trial, decision = decide(State(4), UNEVEN, MANY_CORES)
    assert decision is not None and trial.phase is Phase.VERIFY_READY
    assert (decision.workers, decision.prefetch, decision.predicted_s) == (4, 8, pytest.approx(0.01))
    assert decision.why == "33% of a step is waiting for data, and some take much longer than others"
    smooth = replace(UNEVEN, step_s=0.0101, wait_s=0.0001)
    kept, decision = decide(trial, smooth, MANY_CORES)
    assert decision is None and (kept.phase, kept.workers, kept.prefetch) == (Phase.HOLD, 4, 8)


def test_more_ready_that_gain_nothing_are_taken_back_and_the_number_of_processes_is_looked_at() -> None:
    trial, _ = decide(State(4), UNEVEN, MANY_CORES)
    back, decision = decide(trial, replace(UNEVEN, step_s=0.0148), MANY_CORES)
    assert decision is not None and (decision.workers, decision.prefetch, decision.predicted_s) == (4, 2, None)
    assert decision.why == "8 ready in each process gain 1.4%, less than 3%: back to 2"
    more, decision = decide(back, UNEVEN, MANY_CORES)
    assert decision is not None and (decision.workers, decision.prefetch) == (3, 2)
    assert more.phase is Phase.VERIFY


@pytest.mark.parametrize(
    ("state", "window", "limits"),
    [
        pytest.param(State(4), replace(UNEVEN, spread=0.2), MANY_CORES, id="all take about as long"),
        pytest.param(State(4), replace(UNEVEN, wait_s=0.0001), MANY_CORES, id="nobody waits"),
        pytest.param(State(2), UNEVEN, MANY_CORES, id="too few processes for the mean one"),
        pytest.param(State(0), UNEVEN, MANY_CORES, id="no processes"),
        pytest.param(State(4, 16), UNEVEN, MANY_CORES, id="as many ready as are ever tried"),
        pytest.param(State(4), UNEVEN, replace(MANY_CORES, most_ready=11), id="no room for three in each"),
        pytest.param(State(4), UNEVEN, replace(MANY_CORES, seconds_left=1.0), id="the run is nearly over"),
    ],
)
def test_no_more_are_ready_where(state: State, window: Window, limits: Limits) -> None:
    after, decision = decide(state, window, limits)
    assert after.prefetch == state.prefetch and (decision is None or decision.prefetch == state.prefetch)


def test_as_many_are_ready_as_there_is_room_for() -> None:
    _, decision = decide(State(4), UNEVEN, replace(MANY_CORES, most_ready=23))
    assert decision is not None and decision.prefetch == 5


def test_processes_that_wait_for_cores_are_too_many() -> None:
    """Sixteen on two cores: they are on them for a tenth of the time."""
    window = Window(step_s=0.1, wait_s=0.06, run_s=0.19, queue_s=1.4, other_s=0.01)
    _, decision = decide(State(16), window, Limits(cores=2))
    assert decision is not None and decision.workers == 3
    assert decision.why == "3 processes would do as much as 16"


def test_work_that_costs_less_than_sending_it_is_done_by_the_rank() -> None:
    window = Window(step_s=0.004, wait_s=0.001, run_s=0.0001, queue_s=0.0, other_s=0.0)
    _, decision = decide(State(2), window, MANY_CORES)
    assert decision is not None and decision.workers == 0 and decision.predicted_s == pytest.approx(0.0031)


def test_nothing_is_changed_for_a_run_that_is_nearly_over() -> None:
    assert decide(State(2), STARVED, replace(MANY_CORES, seconds_left=0.5))[1] is None
    assert decide(State(2), STARVED, replace(MANY_CORES, seconds_left=60.0))[1] is not None


def test_another_workload_is_believed_when_two_windows_say_so() -> None:
    held, _ = decide(State(2), BUSY, MANY_CORES)
    once, decision = decide(held, STARVED, MANY_CORES)
    assert decision is None and once.phase is Phase.HOLD
    assert decide(once, BUSY, MANY_CORES)[0].num_new == 0
    twice, decision = decide(once, STARVED, MANY_CORES)
    assert decision is None and twice.phase is Phase.MEASURE
    assert decide(twice, STARVED, MANY_CORES)[1] is not None


seconds = st.floats(1e-5, 10.0)
windows = st.builds(
    lambda step_s, share, *costs: Window(step_s, step_s * share, *costs),
    *(seconds, st.floats(0.0, 1.0), seconds, seconds, seconds, st.floats(0.0, 4.0)),
)
limits = st.builds(
    Limits,
    cores=st.floats(0.0, 256.0),
    most_workers=st.integers(0, 32),
    most_ready=st.floats(0.0, 1000.0),
    seconds_left=seconds,
)


@given(start=st.integers(0, 32), seen=st.lists(st.tuples(windows, limits), max_size=40))
def test_whatever_is_seen_the_limits_hold_and_switches_are_few(start: int, seen: list[tuple[Window, Limits]]) -> None:
    state, num_switches, allowed = State(start), 0, {start}
    for window, limit in seen:
        before = state
        state, decision = decide(state, window, limit)
        had, has = (before.workers, before.prefetch), (state.workers, state.prefetch)
        assert has == (had if decision is None else (decision.workers, decision.prefetch))
        if decision is not None:
            num_switches += 1
            assert has != had and decision.why
            is_way_back = decision.predicted_s is None
            assert is_way_back or decision.workers == before.workers or decision.workers <= limit.most_workers
            assert is_way_back or state.prefetch <= max(before.prefetch, limit.most_ready / max(1, state.workers))
            assert state.prefetch <= MOST_PREFETCH
            allowed.add(decision.workers)
    assert num_switches == state.num_switches <= MOST_SWITCHES and state.workers in allowed


@given(window=windows, cores=st.floats(0.0, 64.0))
def test_with_enough_processes_no_more_would_help(window: Window, cores: float) -> None:
    limit = Limits(cores=cores)
    most = enough(window, limit)
    assert predicted_step_s(most, window, limit) <= predicted_step_s(10 * most, window, limit) * (1 + 1e-9)
