"""How fast the training loop is, beside a minimal loop by hand and beside the loops of others, on the same work."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.bench.loops.contest import BARE, OURS, RIVALS, Work, contest, speed_beside

SHORT_STEP = {"width": 384, "batch": 32, "steps_per_turn": 150}
"""About 1.3 ms for one rank where nothing else runs."""
LONG_STEP = {"width": 1408, "batch": 64, "steps_per_turn": 50}
"""About 10 ms for one rank where nothing else runs. Turns are long: after a wait at its gate, ours exchanges sooner."""
TURNS = 21
STARTS, TURNS_OF_A_START = 4, 5
TRIES = 3
"""What else runs on the machine is not the loop's cost: as many measurements before one fails."""

pytestmark = [pytest.mark.bench, pytest.mark.contest]


def table(title: str, measured: dict[str, list[float]]) -> str:
    rows = [
        f"  {name:22s}{statistics.median(times) * 1e6:9.0f} us a step{speed_beside(measured, name, BARE):9.3f}"
        for name, times in measured.items()
    ]
    return "\n".join([f"{title}: median step, and speed as a multiple of {BARE}", *rows])


def is_ahead(measured: dict[str, list[float]], least: float) -> bool:
    """Whether ours is at least `least` times as fast as the loop by hand, and faster than every other."""
    beside = {name: speed_beside(measured, OURS, name) for name in measured}
    return beside[BARE] >= least and min(beside[name] for name in RIVALS) > 1


def in_starts(work: Work, folder: Path) -> dict[str, list[float]]:
    """Some turns of each of several starts, the loops in one order and in the other.

    The same loop of two ranks started again, by hand or ours, is up to 9 % faster or slower, with a standard deviation
    of 5 %; the median of STARTS starts has one of 2.5 %.
    """
    names = [BARE, OURS, *RIVALS]
    measured: dict[str, list[float]] = {name: [] for name in names}
    for start in range(STARTS):
        order = names[:: -1 if start % 2 else 1]
        latest = contest(work, order, turns=TURNS_OF_A_START, folder=folder / str(start))
        measured = {name: measured[name] + latest[name] for name in names}
    return measured


def of_one_rank(title: str, work: Work, least: float, folder: Path) -> None:
    """Up to TRIES measurements of all loops, until ours is ahead in one."""
    for attempt in range(TRIES):
        measured = contest(work, [BARE, OURS, *RIVALS], turns=TURNS, folder=folder / str(attempt))
        print(f"\n{table(title, measured)}")
        if is_ahead(measured, least):
            return
    raise AssertionError(f"in {TRIES} measurements the loop was not ahead")


def of_two_ranks(title: str, work: Work, least: float, folder: Path) -> None:
    """Where the first starts do not suffice, as many again are looked at with them, up to TRIES times."""
    measured: dict[str, list[float]] = {}
    for attempt in range(TRIES):
        more = in_starts(work, folder / str(attempt))
        measured = {name: measured.get(name, []) + more[name] for name in more}
        print(f"\n{table(f'{title}, {STARTS * (attempt + 1)} starts', measured)}")
        if is_ahead(measured, least):
            return
    raise AssertionError(f"in {STARTS * TRIES} starts the loop was not ahead")


def test_a_short_step_of_one_rank_costs_no_more_than_by_hand_and_less_than_with_anybody_else(tmp_path: Path) -> None:
    of_one_rank("world 1, short step", Work(world_size=1, **SHORT_STEP), 0.97, tmp_path)


def test_a_short_step_of_two_ranks_costs_about_what_it_does_by_hand_and_less_than_with_anybody_else(
    tmp_path: Path,
) -> None:
    of_two_ranks("world 2, short step", Work(world_size=2, **SHORT_STEP), 0.97, tmp_path)


def test_a_long_step_of_one_rank_costs_what_it_costs_by_hand_and_less_than_with_anybody_else(tmp_path: Path) -> None:
    of_one_rank("world 1, long step", Work(world_size=1, **LONG_STEP), 0.99, tmp_path)


def test_a_long_step_of_two_ranks_costs_what_it_costs_by_hand_and_less_than_with_anybody_else(tmp_path: Path) -> None:
    of_two_ranks("world 2, long step", Work(world_size=2, **LONG_STEP), 0.99, tmp_path)
