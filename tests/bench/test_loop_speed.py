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
STARTS, TURNS_OF_A_START = 6, 5
TRIES = 3
"""What else runs on the machine is not the loop's cost: as many measurements before one fails."""

pytestmark = [pytest.mark.bench, pytest.mark.contest]


def table(title: str, measured: dict[str, list[float]]) -> str:
    rows = [
        f"  {name:22s}{statistics.median(times) * 1e6:9.0f} us a step{speed_beside(measured, name, BARE):9.3f}"
        for name, times in measured.items()
    ]
    return "\n".join([f"{title}: median step, and speed as a multiple of {BARE}", *rows])


def in_starts(work: Work, names: list[str], number: int, folder: Path) -> dict[str, list[float]]:
    """Some turns of each of several starts, the loops in one order and in the other."""
    measured: dict[str, list[float]] = {name: [] for name in names}
    for start in range(number):
        latest = contest(work, names[:: -1 if start % 2 else 1], turns=TURNS_OF_A_START, folder=folder / str(start))
        measured = {name: measured[name] + latest[name] for name in measured}
    return measured


def measure(title: str, work: Work, names: list[str], folder: Path) -> dict[str, list[float]]:
    """The turns of all loops; the table is printed as it is measured."""
    measured = contest(work, names, turns=TURNS, folder=folder)
    print(f"\n{table(title, measured)}")
    return measured


def test_a_short_step_of_one_rank_costs_no_more_than_by_hand_and_less_than_with_anybody_else(tmp_path: Path) -> None:
    for attempt in range(TRIES):
        work = Work(world_size=1, **SHORT_STEP)
        measured = measure("world 1, short step", work, [BARE, OURS, *RIVALS], tmp_path / str(attempt))
        beside = {name: speed_beside(measured, OURS, name) for name in measured}
        faster = [name for name in RIVALS if beside[name] <= 1]
        if beside[BARE] >= 0.97 and not faster:
            return
    assert beside[BARE] >= 0.97
    assert faster == []


def test_a_short_step_of_two_ranks_costs_about_what_it_costs_by_hand_and_less_than_a_trainers(
    tmp_path: Path,
) -> None:
    """Here too a start decides over some percent, and the machine over more: decision 19 has both.

    What held on every machine so far is asked for, which is less than the 0.97 that is wanted.
    """
    work = Work(world_size=2, **SHORT_STEP)
    measured = in_starts(work, [BARE, OURS, *RIVALS], 3, tmp_path)
    print(f"\n{table('world 2, short step, 3 starts', measured)}")
    beside = {name: speed_beside(measured, OURS, name) for name in measured}
    assert min(beside[BARE], beside["Lightning Fabric"]) >= 0.9
    assert min(beside[name] for name in ("Accelerate", "Lightning Trainer", "Transformers Trainer")) > 1


def test_a_long_step_of_one_rank_costs_what_it_costs_by_hand(tmp_path: Path) -> None:
    for attempt in range(TRIES):
        work = Work(world_size=1, **LONG_STEP)
        measured = measure("world 1, long step", work, [BARE, OURS], tmp_path / str(attempt))
        if (ratio := speed_beside(measured, OURS, BARE)) >= 0.99:
            return
    assert ratio >= 0.99


def test_a_long_step_of_two_ranks_costs_what_it_costs_by_hand(tmp_path: Path) -> None:
    """The same loop started again, by hand or ours, is up to 9 % faster or slower, with a standard deviation of 5 %.

    So the turns of several starts are looked at together, and of as many again when these do not suffice. Of STARTS
    starts the median has a standard deviation of 2 %, and 0.99 less two of these is asked for: what many more starts
    came to stands in decision 19.
    """
    work = Work(world_size=2, **LONG_STEP)
    measured = in_starts(work, [BARE, OURS], STARTS, tmp_path / "first")
    if speed_beside(measured, OURS, BARE) < 0.95:
        more = in_starts(work, [BARE, OURS], STARTS, tmp_path / "more")
        measured = {name: measured[name] + more[name] for name in measured}
    print(f"\n{table(f'world 2, long step, {len(measured[OURS]) // TURNS_OF_A_START} starts', measured)}")
    assert speed_beside(measured, OURS, BARE) >= 0.95
