"""How many loader processes there is room for, and what is said where more would help."""

from __future__ import annotations

import math
import random

import pytest

from orchestrator.tuning.advice import advice
from orchestrator.tuning.loader_law import Limits, Phase, State, Window, decide
from orchestrator.tuning.loader_room import Room
from tests.tuning.plants import random_plant

GIB = float(1 << 30)
ROOM = Room(8 * GIB, 2 * GIB, worker_bytes=GIB, batch_bytes=GIB / 16, prefetch=2, has_workers=True)


def test_new_processes_take_half_of_what_is_free() -> None:
    """The other half is for what they grow by, and for the way back."""
    assert ROOM.most_by_memory() == 4
    assert ROOM.most_by_shared_memory() == 8


def test_what_a_machine_does_not_tell_is_no_limit() -> None:
    room = Room(math.inf, math.inf, worker_bytes=0.0, batch_bytes=0.0, prefetch=2, has_workers=False)
    assert room.most_by_memory() == room.most_by_shared_memory() == math.inf


def test_with_none_to_measure_one_may_be_tried() -> None:
    """A rank that is large would else never get any: what a process takes of it is not known before there is one."""
    assert Room(GIB, GIB, worker_bytes=30 * GIB, batch_bytes=1.0, prefetch=2, has_workers=False).most_by_memory() == 1
    assert Room(GIB, GIB, worker_bytes=30 * GIB, batch_bytes=1.0, prefetch=2, has_workers=True).most_by_memory() < 1


@pytest.mark.parametrize("most", [0, 1, 3, 7])
def test_no_switch_starts_more_than_there_is_room_for(most: int) -> None:
    """But for the way back, which is to fewer than were there."""
    for seed in range(300):
        plant, chance, state = random_plant(seed), random.Random(-seed), State(seed % 5)
        largest = state.workers
        for _ in range(40):
            window = plant.window(state.workers, chance)
            before = state.workers
            state, decision = decide(state, window, Limits(plant.cores, most_workers=most))
            if decision is not None:
                assert decision.workers <= max(most, before), (seed, before, decision)
                assert decision.workers <= max(most, largest)


def test_a_trial_between_two_numbers_needs_room_too() -> None:
    """Sixteen were slower than two, and memory is short: nine more beside them would make it worse."""
    slower = Window(step_s=0.3, wait_s=0.2, run_s=0.02, queue_s=0.0, other_s=0.18)
    state = State(16, phase=Phase.VERIFY, best=(2, WAITS), tried=frozenset({2}), num_switches=1)
    _, between = decide(state, slower, Limits(cores=8))
    _, back = decide(state, slower, Limits(cores=8, most_workers=8))
    assert between is not None and back is not None and (between.workers, back.workers) == (9, 2)


WAITS = Window(step_s=0.1, wait_s=0.05, run_s=0.02, queue_s=0.0, other_s=0.18)
"""Half of a step is waiting; a step's data take 0.2 s, 0.02 of them on a core, and the rank itself 0.05 s."""


def test_a_run_that_does_not_wait_is_told_nothing() -> None:
    idle = Window(step_s=0.1, wait_s=0.004, run_s=0.5, queue_s=0.0, other_s=0.0)
    assert list(advice(8, idle, Limits(cores=1, most_workers=0))) == []


def test_too_few_cores_are_told_with_how_many_more_would_do() -> None:
    on_cores = Window(step_s=0.2, wait_s=0.15, run_s=0.2, queue_s=0.1, other_s=0.0)
    (told,) = advice(2, on_cores, Limits(cores=1))
    assert "cap each rank at 25% of its speed; 3 more in resources.cpus_per_gpu would free it" in told
    assert list(advice(5, WAITS, Limits(cores=8))) == []


def test_too_little_memory_is_told_with_how_many_there_is_room_for() -> None:
    (told,) = advice(2, WAITS, Limits(cores=8, most_workers=1))
    assert told.startswith("5 loader processes would keep up, and only 1 can be started at once, for memory")
    assert list(advice(5, WAITS, Limits(cores=8, most_workers=1))) == []
