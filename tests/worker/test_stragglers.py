"""Who is slow, told from what each rank worked on its own: the rule in a table, and what holds whatever comes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tracking.stragglers import Straggler
from orchestrator.worker.stragglers import (
    LOOKED_AT,
    SHARE_OF_STEP,
    TIMES_MEDIAN,
    WINDOW_S,
    WINDOW_STEPS,
    RankTime,
    Stragglers,
    excesses,
)


def ranks(*own: tuple[float, float], num_steps: int = 10) -> list[RankTime]:
    """What each rank took in a step: (waiting for data, computing)."""
    return [RankTime(num_steps, data * num_steps, compute * num_steps) for data, compute in own]


EVEN = (0.1, 0.1)


@pytest.mark.parametrize(
    ("own", "shares", "step_s", "slow"),
    [
        ([EVEN] * 4, [1] * 4, 0.5, []),
        ([EVEN, EVEN, (0.1, 0.2), EVEN], [1] * 4, 0.5, [2]),
        ([EVEN, (0.3, 0.1)], [1] * 2, 0.5, [1]),
        ([(0.3, 0.1), EVEN], [1] * 2, 0.5, [0]),
        ([EVEN, EVEN, (0.3, 0.1), (0.3, 0.1)], [1] * 4, 0.5, [2, 3]),
        ([EVEN, EVEN, (0.1, 0.14)], [1] * 3, 0.3, []),
        ([EVEN, EVEN, (0.1, 0.16)], [1] * 3, 0.3, [2]),
        ([EVEN, EVEN, (0.1, 0.16)], [1] * 3, 1.3, []),
        ([EVEN, EVEN, (0.2, 0.2)], [1, 1, 2], 0.5, []),
        ([EVEN, EVEN, (0.2, 0.4)], [1, 1, 2], 0.8, [2]),
        ([(0.0, 0.0), (0.0, 0.2)], [1] * 2, 0.5, []),
        ([EVEN], [1], 0.5, []),
    ],
    ids=[
        "all alike",
        "one computes twice as long",
        "of two the slower one",
        "also where it is rank 0",
        "one node of two",
        "within a quarter",
        "beyond a quarter",
        "nobody suffers from it",
        "it has twice the samples",
        "even for twice the samples",
        "nothing was measured of half of them",
        "a rank alone",
    ],
)
def test_who_is_slow_in_a_window(
    own: list[tuple[float, float]], shares: list[int], step_s: float, slow: list[int]
) -> None:
    assert list(excesses(ranks(*own), shares=shares, step_s=step_s)) == slow


def test_what_a_slow_rank_costs() -> None:
    (excess,) = excesses(ranks(EVEN, (0.3, 0.12), EVEN), shares=[1] * 3, step_s=0.6).values()
    assert excess.times_median == pytest.approx(2.1) and excess.cost == pytest.approx(0.22 / 0.6)
    assert (excess.data_s, excess.compute_s) == (pytest.approx(0.2), pytest.approx(0.02))


def told(windows: Sequence[Sequence[RankTime]], *, steps: int = 10) -> list[tuple[int, Straggler]]:
    """What is told of windows of as many steps each, of 0.5 s: (window, what)."""
    size = len(windows[0])
    watch = Stragglers([1] * size, [f"node{rank // 2 + 1}" for rank in range(size)])
    found = []
    for number, times in enumerate(windows):
        first = number * steps + 1
        one = watch.add(times, first_step=first, last_step=first + steps - 1, seconds=0.5 * steps)
        found += [(number, each) for each in one]
    return found


WELL, SLOW = ranks(EVEN, EVEN, EVEN, EVEN), ranks(EVEN, EVEN, EVEN, (0.1, 0.26))


def test_a_rank_is_named_once_it_was_slow_in_four_windows_of_five_and_the_first_is_none_of_them() -> None:
    ((window, named),) = told([SLOW, WELL, SLOW, SLOW, SLOW, SLOW, SLOW, SLOW])
    assert window == 5
    assert named == Straggler(3, "node2", "compute", times_median=1.8, cost=0.32, since_step=21)


def test_the_end_is_told_once_it_was_slow_in_one_window_of_five() -> None:
    (begins, named), (ends, ended) = told([SLOW] * 7 + [WELL] * 8)
    assert (begins, ends) == (4, 10)
    assert ended == Straggler(**{**named.as_detail(), "until_step": 70})


def test_what_comes_and_goes_is_neither_named_nor_told_again() -> None:
    assert told([WELL, *[SLOW, WELL] * 20]) == []
    assert len(told([SLOW] * 6 + [WELL, SLOW] * 20)) == 1


def test_of_data_and_compute_the_larger_excess_is_told() -> None:
    late = ranks(EVEN, EVEN, (0.3, 0.15))
    ((_, named),) = told([late] * 6)
    assert (named.rank, named.slow_at, named.times_median) == (2, "data", 2.25)


def test_short_steps_are_judged_by_seconds_and_long_ones_by_their_number() -> None:
    """Windows of a beat each would name a rank after a second; windows of a long step each after five steps."""
    short = Stragglers([1, 1], ["a", "a"])
    for beat in range(100):
        times = [RankTime(20, 0.0, 0.1), RankTime(20, 0.0, 0.19)]
        found = short.add(times, first_step=20 * beat + 1, last_step=20 * beat + 20, seconds=0.25)
        if found:
            break
    assert (beat + 1) * 0.25 == pytest.approx(5 * WINDOW_S)
    long = Stragglers([1, 1], ["a", "a"])
    named = (
        step
        for step in range(1, 100)
        if long.add([RankTime(1, 0, 1), RankTime(1, 0, 5)], first_step=step, last_step=step, seconds=9.0)
    )
    assert next(named) == 5 * WINDOW_STEPS


def test_figures_that_come_late_belong_to_the_steps_that_they_are_of() -> None:
    """On a GPU: one rank's figures are two beats behind, and its means are the same."""
    watch = Stragglers([1, 1], ["a", "a"])
    found: list[Straggler] = []
    for beat in range(60):
        late = 0 if beat < 2 else 4
        times = [RankTime(4, 0.0, 0.4), RankTime(late, 0.0, 0.2 * late)]
        found += watch.add(times, first_step=4 * beat + 1, last_step=4 * beat + 4, seconds=1.0)
    (only,) = found
    assert (only.rank, only.times_median) == (1, 2.0)


seconds = st.floats(0.001, 10)
some_ranks = st.lists(st.tuples(seconds, seconds), min_size=2, max_size=9)


@given(own=some_ranks, step_s=st.floats(0.01, 30))
def test_nobody_is_named_without_being_slower_than_the_usual_and_costing_something(
    own: list[tuple[float, float]], step_s: float
) -> None:
    busy = sorted(sum(each) for each in own)
    usual_s = busy[(len(busy) - 1) // 2]
    slow = excesses(ranks(*own), shares=[1] * len(own), step_s=step_s)
    for rank, each in enumerate(own):
        times, cost = sum(each) / usual_s, (sum(each) - usual_s) / step_s
        if abs(times - TIMES_MEDIAN) > 1e-9 and abs(cost - SHARE_OF_STEP) > 1e-9:
            assert (rank in slow) == (times > TIMES_MEDIAN and cost > SHARE_OF_STEP)
    assert len(slow) <= len(own) // 2


@given(own=some_ranks, data=st.data())
def test_ranks_are_judged_alike_wherever_they_stand(own: list[tuple[float, float]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(own))))
    slow = excesses(ranks(*own), shares=[1] * len(own), step_s=5.0)
    moved = excesses(ranks(*(own[rank] for rank in order)), shares=[1] * len(own), step_s=5.0)
    assert {order[rank] for rank in moved} == set(slow)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_a_rank_is_named_and_ended_in_turns_and_never_before_four_slow_windows(
    slow: list[tuple[bool, bool]],
) -> None:
    windows = [ranks(EVEN, EVEN, *((0.1, 0.3) if each else EVEN for each in pair)) for pair in slow]
    found = told(windows) if windows else []
    for rank in (2, 3):
        mine = [(window, one) for window, one in found if one.rank == rank]
        assert [one.until_step is None for _, one in mine] == [turn % 2 == 0 for turn in range(len(mine))]
        for window, one in mine:
            latest = [pair[rank - 2] for pair in slow[max(1, window + 1 - LOOKED_AT) : window + 1]]
            assert sum(latest) >= 4 if one.until_step is None else sum(latest) <= 1
