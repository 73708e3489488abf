"""The batch is exact: sums, limits, balance and least accumulation hold for every window, world and limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.batch import (
    BatchPlan,
    Indivisible,
    batch_per_gpu,
    describe_sizes,
    plan_batch,
    rank_positions,
    window_shares,
)

windows = st.tuples(
    st.integers(min_value=0, max_value=5000),
    st.integers(min_value=1, max_value=70),
    st.one_of(st.none(), st.integers(min_value=1, max_value=300)),
)


@given(windows)
def test_the_shares_of_a_window_sum_to_it_and_differ_by_at_most_one(window: tuple[int, int, int | None]) -> None:
    num_samples, world_size, largest = window
    shares = window_shares(num_samples, world_size=world_size, largest_micro_batch=largest)
    ranks = [sum(share) for share in shares]
    assert sum(ranks) == num_samples
    assert len(shares) == world_size
    assert max(ranks) - min(ranks) <= 1
    assert all(max(share) - min(share) <= 1 for share in shares)


@given(windows)
def test_all_ranks_make_the_same_and_the_fewest_micro_steps_within_the_limit(
    window: tuple[int, int, int | None],
) -> None:
    num_samples, world_size, largest = window
    shares = window_shares(num_samples, world_size=world_size, largest_micro_batch=largest)
    steps = {len(share) for share in shares}
    assert len(steps) == 1
    most = -(-num_samples // world_size)
    assert steps == {max(1, -(-most // (largest or max(most, 1))))}
    assert largest is None or max(map(max, shares)) <= largest


@given(windows, st.integers(min_value=0, max_value=10**9))
def test_the_positions_of_all_ranks_tile_the_window_in_order(window: tuple[int, int, int | None], start: int) -> None:
    num_samples, world_size, largest = window
    shares = window_shares(num_samples, world_size=world_size, largest_micro_batch=largest)
    tiles = [tile for rank in range(world_size) for tile in rank_positions(shares, start=start, rank=rank)]
    assert [position for tile in tiles for position in tile] == list(range(start, start + num_samples))


@pytest.mark.parametrize(
    ("batch", "world", "micro", "expected"),
    [
        (256, 8, 32, (32, 1, "equal")),
        (256, 8, 64, (32, 1, "equal")),
        (256, 8, 20, (16, 2, "equal")),
        (1024, 64, 4, (4, 4, "equal")),
        (480, 24, 16, (10, 2, "equal")),
        (509, 1, 16, (16, 32, "ragged")),
        (488, 8, 16, (16, 4, "ragged")),
        (64, 8, 1, (1, 8, "equal")),
        (1, 1, 1, (1, 1, "equal")),
        (8192, 256, 32, (32, 1, "equal")),
        (1_000_000, 1000, 7, (7, 143, "ragged")),
    ],
)
def test_a_batch_that_the_world_divides_is_planned_exactly(
    batch: int, world: int, micro: int, expected: tuple[int, int, str]
) -> None:
    plan = plan_batch(batch, world_size=world, largest_micro_batch=micro)
    assert isinstance(plan, BatchPlan)
    assert plan.effective_batch_size == batch
    assert (plan.micro_batch_size, plan.gradient_accumulation_steps, plan.kind) == expected


@pytest.mark.parametrize(
    ("batch", "world", "worlds", "batches"),
    [
        (1024, 24, (16, 32), (1008, 1032)),
        (509, 8, (1,), (504, 512)),
        (4, 8, (4,), (8,)),
        (64, 3, (2, 4), (63, 66)),
    ],
)
def test_an_indivisible_batch_is_refused_with_its_neighbours(
    batch: int, world: int, worlds: tuple[int, ...], batches: tuple[int, ...]
) -> None:
    refused = plan_batch(batch, world_size=world)
    assert refused == Indivisible(batch, world, worlds, batches)


def test_nearest_takes_the_closest_batch_within_the_tolerance_and_else_refuses() -> None:
    near = plan_batch(1024, world_size=24, largest_micro_batch=16, on_indivisible="nearest", tolerance=0.05)
    assert isinstance(near, BatchPlan)
    assert (near.effective_batch_size, near.requested, near.micro_batch_size) == (1032, 1024, 15)
    assert isinstance(plan_batch(1024, world_size=24, on_indivisible="nearest", tolerance=0.001), Indivisible)


def test_uneven_keeps_the_batch_exact_and_ranks_differ_by_one_sample() -> None:
    plan = plan_batch(100, world_size=3, largest_micro_batch=50, on_indivisible="uneven")
    assert isinstance(plan, BatchPlan)
    assert (plan.effective_batch_size, plan.kind, plan.micro_batch_size) == (100, "uneven", 34)


def test_fewer_samples_than_ranks_are_refused_even_when_uneven() -> None:
    assert isinstance(plan_batch(4, world_size=8, on_indivisible="uneven"), Indivisible)


def test_in_per_gpu_mode_the_effective_batch_is_an_output() -> None:
    plan = batch_per_gpu(32, world_size=64, largest_micro_batch=20)
    assert (plan.effective_batch_size, plan.gradient_accumulation_steps, plan.requested) == (2048, 2, None)


def test_many_sizes_are_described_in_groups() -> None:
    assert describe_sizes((16, 15, 15, 15)) == "16, 15, 15, 15"
    assert describe_sizes((16,) * 29 + (15,) * 3) == "16 x 29 + 15 x 3"
