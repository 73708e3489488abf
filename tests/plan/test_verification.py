"""Which topologies are compared, and what holds."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.batch import window_shares
from orchestrator.plan.verification import Case, Row, cases_of, reference_case

EXACT = Row("fp64", 2, "2 x (8)", 1, loss=1e-15, parameters=1e-15, same_ids=True, same_data=True)


def test_digits_are_compared_whole_ragged_and_in_few_samples() -> None:
    cases = cases_of(64, (1, 5), None)
    assert [case.describe(64, 1) for case in cases] == [
        ("1 x (22, 21, 21)", 3),
        ("1 x (4 x 16)", 16),
        ("4 x (13) + 1 x (12)", 1),
        ("4 x (7, 6) + 1 x (6, 6)", 2),
        ("4 x (1 x 13) + 1 x (1 x 12 + 0 x 1)", 13),
    ]


@given(st.integers(1, 300), st.integers(1, 9), st.none() | st.integers(1, 40))
def test_no_micro_batch_is_larger_than_the_recipe_allows(batch: int, world_size: int, limit: int | None) -> None:
    for case in (reference_case(batch, limit), *cases_of(batch, (world_size,), limit)):
        shares = window_shares(batch, world_size=case.world_size, largest_micro_batch=case.largest_micro_batch)
        assert sum(map(sum, shares)) == batch
        assert max(map(max, shares)) <= (limit or batch)


@given(st.integers(1, 60), st.integers(1, 4))
def test_each_world_has_a_ragged_case_where_there_is_one(batch: int, world_size: int) -> None:
    def is_ragged(largest: int) -> bool:
        return len(set(window_shares(batch, world_size=world_size, largest_micro_batch=largest)[0])) > 1

    compared = any(is_ragged(case.largest_micro_batch) for case in cases_of(batch, (world_size,), None))
    assert compared or not any(map(is_ragged, range(2, batch + 1)))


def test_the_reference_is_not_compared_with_itself() -> None:
    assert reference_case(16, None) == Case(1, 16)
    assert reference_case(16, 4) == Case(1, 4)
    assert Case(1, 16) not in cases_of(16, (1, 2), None)
    assert cases_of(1, (1,), None) == ()


def test_a_row_holds_when_only_rounding_is_left() -> None:
    assert EXACT.holds
    broken = [{"loss": 2e-12}, {"parameters": 2e-12}, {"moved": 1.1}, {"same_ids": False}, {"same_data": False}]
    assert not any(replace(EXACT, **changes).holds for changes in (*broken, {"failed": "no"}, {"loss": None}))
    assert replace(EXACT, precision="fp32", loss=4e-6, parameters=9e-5).holds
