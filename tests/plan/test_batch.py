"""The batch is exact: sums, limits, balance and least accumulation hold for every window, world and limit."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.batch import (
    BatchPlan,
    Indivisible,
    MicroBatchLimits,
    NothingFits,
    Runs,
    balanced,
    batch_per_gpu,
    describe_runs,
    largest_divisor,
    nearest_worlds,
    padded_rows,
    plan_batch,
    rank_groups,
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


@dataclass(frozen=True)
class Case:
    """A worked case: what is asked for, and what must come out. `lr` is the (linear, sqrt) factor."""

    number: int
    batch: int
    world: int
    largest: int
    micro: int
    accumulation: int
    achieved: int
    lr: tuple[float, float] = (1.0, 1.0)
    policy: Literal["refuse", "nearest", "uneven"] = "refuse"
    tolerance: float = 0.0
    equal: bool = False
    multiple: int = 1
    sizes: tuple[int, ...] | None = None
    """The micro-batches of rank 0, where the case names them."""


CASES = [
    Case(1, 256, 8, 32, 32, 1, 256),
    Case(2, 256, 8, 64, 32, 1, 256),
    Case(3, 256, 8, 20, 16, 2, 256),
    Case(4, 1024, 64, 4, 4, 4, 1024),
    Case(6, 1024, 24, 16, 15, 3, 1032, (1.0078, 1.0039), "nearest", 0.05, sizes=(15, 14, 14)),
    Case(7, 1024, 24, 16, 15, 3, 1024, policy="uneven"),
    Case(8, 1024, 48, 8, 7, 3, 1008, (0.9844, 0.9922), "nearest", 0.02),
    Case(9, 480, 24, 16, 10, 2, 480),
    Case(10, 480, 24, 17, 10, 2, 480, equal=True, multiple=8),
    Case(12, 509, 8, 16, 16, 4, 512, (1.0059, 1.0029), "nearest", 0.05),
    Case(13, 509, 1, 16, 16, 32, 509, sizes=(16,) * 29 + (15,) * 3),
    Case(14, 509, 1, 16, 1, 509, 509, equal=True),
    Case(15, 488, 8, 16, 16, 4, 488, sizes=(16, 15, 15, 15)),
    Case(16, 488, 8, 16, 1, 61, 488, equal=True),
    Case(18, 64, 8, 1, 1, 8, 64),
    Case(19, 1, 1, 1, 1, 1, 1),
    Case(20, 8192, 256, 32, 32, 1, 8192),
    Case(21, 8192, 96, 32, 29, 3, 8160, (0.9961, 0.9980), "nearest", 0.05, sizes=(29, 28, 28)),
    Case(22, 2048, 7, 9, 9, 33, 2051, (1.0015, 1.0007), "nearest", 0.05, sizes=(9,) * 29 + (8,) * 4),
    Case(23, 32768, 1536, 4, 4, 6, 32256, (0.9844, 0.9922), "nearest", 0.05, sizes=(4, 4, 4, 3, 3, 3)),
    Case(24, 100, 3, 50, 34, 1, 100, policy="uneven"),
    Case(25, 4096, 12, 3, 3, 114, 4096, policy="uneven"),
    Case(26, 960, 16, 17, 15, 4, 960, multiple=8, sizes=(15, 15, 15, 15)),
    Case(27, 1_000_000, 1000, 7, 7, 143, 1_000_000),
    Case(30, 1_048_576 // 4096, 16, 6, 6, 3, 256, sizes=(6, 5, 5)),
]
"""The worked cases that have a plan; 5, 11, 17 and 28 are refused, 29 fixes the samples per GPU: below."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case {case.number}")
def test_the_worked_cases_come_out_as_worked(case: Case) -> None:
    plan = plan_batch(
        case.batch,
        world_size=case.world,
        limits=MicroBatchLimits(case.largest, equal=case.equal, multiple=case.multiple),
        on_indivisible=case.policy,
        tolerance=case.tolerance,
    )
    assert isinstance(plan, BatchPlan)
    found = (plan.micro_batch_size, plan.gradient_accumulation_steps, plan.effective_batch_size)
    assert found == (case.micro, case.accumulation, case.achieved)
    factor = plan.effective_batch_size / case.batch
    assert (round(factor, 4), round(factor**0.5, 4)) == case.lr
    if case.sizes is not None:
        ranks = window_shares(
            plan.effective_batch_size,
            world_size=case.world,
            largest_micro_batch=plan.largest_micro_batch,
            micro_multiple=plan.micro_multiple,
        )
        assert ranks[0] == case.sizes


@pytest.mark.parametrize(
    ("case", "batch", "world", "policy", "worlds", "batches"),
    [
        (5, 1024, 24, "refuse", (16, 32), (1008, 1032)),
        (11, 509, 8, "refuse", (1, 509), (504, 512)),
        (17, 4, 8, "refuse", (4,), (8,)),
        (17, 4, 8, "uneven", (4,), (8,)),
        (17, 4, 8, "nearest", (4,), (8,)),
        (0, 64, 3, "refuse", (2, 4), (63, 66)),
        (0, 1024, 24, "nearest", (16, 32), (1008, 1032)),
    ],
)
def test_an_indivisible_batch_is_refused_with_its_neighbours(
    case: int, batch: int, world: int, policy: Any, worlds: tuple[int, ...], batches: tuple[int, ...]
) -> None:
    refused = plan_batch(batch, world_size=world, on_indivisible=policy, tolerance=0.001)
    assert refused == Indivisible(batch, world, worlds, batches)


@pytest.mark.parametrize("policy", ["refuse", "nearest", "uneven"])
def test_case_28_not_one_sample_fits_and_no_policy_helps(policy: Any) -> None:
    limits = MicroBatchLimits(0)
    assert plan_batch(256, world_size=8, limits=limits, on_indivisible=policy) == NothingFits(256)
    assert batch_per_gpu(32, world_size=8, limits=limits) == NothingFits(256)


def test_case_29_with_a_fixed_share_per_gpu_the_effective_batch_is_an_output() -> None:
    plan = batch_per_gpu(32, world_size=64, limits=MicroBatchLimits(32))
    assert isinstance(plan, BatchPlan)
    assert (plan.effective_batch_size, plan.gradient_accumulation_steps, plan.requested) == (2048, 1, None)


def parts(total: int, num_parts: int, largest: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as `num_parts` sizes from 1 to `largest`, the larger ones first."""
    if num_parts == 0:
        yield from [()] if total == 0 else []
        return
    for size in range(min(largest, total - num_parts + 1), 0, -1):
        yield from ((size, *rest) for rest in parts(total - size, num_parts - 1, size))


def rows(sizes: Iterable[int], multiple: int) -> int:
    return sum(-(-size // multiple) * multiple for size in sizes)


@pytest.mark.parametrize(
    ("samples", "largest", "multiple", "runs"),
    [
        (20, 17, 8, ((16, 1), (4, 1))),
        (60, 17, 8, ((15, 4),)),
        (36, 20, 8, ((16, 1), (20, 1))),
        (17, 17, 8, ((17, 1),)),
        (40, 20, 8, ((20, 2),)),
        (10, 4, 8, ((4, 1), (3, 2))),
    ],
)
def test_sizes_are_aligned_only_where_that_pads_less_and_takes_no_more_steps(
    samples: int, largest: int, multiple: int, runs: Any
) -> None:
    found = rank_groups(samples, world_size=1, largest_micro_batch=largest, micro_multiple=multiple)
    assert found == ((1, runs),)


def test_aligned_sizes_are_the_cheapest_that_trying_all_finds() -> None:
    """Among all sizes of which at most one is no multiple, and the balanced ones, nothing pads fewer rows."""
    for samples, largest, multiple in product(range(1, 31), range(1, 13), (2, 3, 4)):
        ((_, runs),) = rank_groups(samples, world_size=1, largest_micro_batch=largest, micro_multiple=multiple)
        sizes = [size for size, count in runs for _ in range(count)]
        even = balanced(samples, len(sizes))
        aligned = [way for way in parts(samples, len(sizes), largest) if sum(s % multiple > 0 for s in way) <= 1]
        assert rows(sizes, multiple) == min(rows(way, multiple) for way in [even, *aligned])
        assert tuple(sizes) == even or rows(sizes, multiple) < rows(even, multiple)
        assert len(sizes) == -(-samples // largest) and max(sizes) <= largest and sum(sizes) == samples


def test_aligned_micro_batches_tile_the_window_too() -> None:
    shares = window_shares(67, world_size=3, largest_micro_batch=17, micro_multiple=8)
    assert shares == ((16, 7), (16, 6), (16, 6))
    tiles = [tile for rank in range(3) for tile in rank_positions(shares, start=5, rank=rank)]
    assert [position for tile in tiles for position in tile] == list(range(5, 72))


@dataclass(frozen=True)
class Asked:
    """A random request."""

    batch: int
    world: int
    largest: int | None
    policy: Literal["refuse", "nearest", "uneven"]
    tolerance: float
    equal: bool
    multiple: int

    @classmethod
    def drawn(cls, draw: random.Random) -> Asked:
        world = draw.choice([1, 1, 2, 3, 4, 7, 8, 16, 24, 48, 64, draw.randint(1, 300)])
        batch = draw.choice([draw.randint(1, 5000), world * draw.randint(1, 200), draw.randint(1, 300_000)])
        return cls(
            batch,
            world,
            draw.choice([None, draw.randint(1, 40), draw.randint(1, 5000)]),
            draw.choice(["refuse", "nearest", "uneven"]),
            draw.choice([0.0, 0.01, 0.05, 0.5]),
            draw.random() < 0.2,
            draw.choice([1, 1, 1, 2, 8, 16]),
        )


def test_a_hundred_thousand_random_requests_keep_every_invariant() -> None:
    draw = random.Random(20261124)
    planned = 0
    for _ in range(100_000):
        asked = Asked.drawn(draw)
        plan = plan_batch(
            asked.batch,
            world_size=asked.world,
            limits=MicroBatchLimits(asked.largest, equal=asked.equal, multiple=asked.multiple),
            on_indivisible=asked.policy,
            tolerance=asked.tolerance,
        )
        if isinstance(plan, BatchPlan):
            check_plan(asked, plan)
            planned += 1
        else:
            assert isinstance(plan, Indivisible)
            check_refusal(asked, plan)
    assert planned > 50_000


def check_plan(asked: Asked, plan: BatchPlan) -> None:
    """Sum, caps, balance, and the fewest micro-steps, the same on all ranks."""
    groups = plan.groups(asked.world)
    ranks = [(num_ranks, sum(size * count for size, count in runs)) for num_ranks, runs in groups]
    assert sum(num_ranks for num_ranks, _ in ranks) == asked.world, asked
    assert sum(num_ranks * samples for num_ranks, samples in ranks) == plan.effective_batch_size, asked
    shares = [samples for _, samples in ranks]
    assert max(shares) - min(shares) <= (asked.policy == "uneven"), asked
    assert {sum(count for _, count in runs) for _, runs in groups} == {plan.gradient_accumulation_steps}, asked
    assert max(size for _, runs in groups for size, _ in runs) == plan.micro_batch_size, asked
    assert plan.micro_batch_size <= (asked.largest or plan.micro_batch_size), asked
    limit = asked.largest or max(shares)
    if not asked.equal:
        assert plan.gradient_accumulation_steps == -(-max(shares) // limit), asked
    for _, runs in groups:
        check_sizes(asked, plan, runs)
    if plan.effective_batch_size != asked.batch:
        assert asked.policy == "nearest" and asked.batch % asked.world, asked
        assert abs(plan.effective_batch_size - asked.batch) <= asked.tolerance * asked.batch, asked
        assert abs(plan.effective_batch_size - asked.batch) <= asked.world / 2, asked


def check_sizes(asked: Asked, plan: BatchPlan, runs: Runs) -> None:
    """Balanced, or aligned and then cheaper; with equal sizes one size alone."""
    sizes = [size for size, _ in runs]
    samples, steps = sum(size * count for size, count in runs), plan.gradient_accumulation_steps
    size, larger = divmod(samples, steps)
    even = ((size + 1, larger), (size, steps - larger))
    if max(sizes) - min(sizes) > 1:
        assert padded_rows(runs, asked.multiple) < padded_rows(even, asked.multiple), asked
        assert all(size % asked.multiple == 0 for size in sizes[:-1]), asked
        assert runs[-1][1] == 1 or sizes[-1] % asked.multiple == 0, asked
    if asked.equal and asked.largest is not None and plan.kind != "uneven":
        assert len(sizes) == 1, asked


@lru_cache
def divisors_of(number: int) -> list[int]:
    """By trying all up to the root."""
    small = [divisor for divisor in range(1, int(number**0.5) + 2) if number % divisor == 0]
    return [*small, *(number // divisor for divisor in small)]


def check_refusal(asked: Asked, refused: Indivisible) -> None:
    """It could really not be shared, and the neighbours really can."""
    assert asked.batch % asked.world, asked
    assert asked.batch < asked.world or asked.policy != "uneven", asked
    worlds = divisors_of(asked.batch)
    assert min(refused.worlds) == max(world for world in worlds if world <= asked.world), asked
    assert max(refused.worlds) == min([world for world in worlds if world >= asked.world] or refused.worlds), asked
    assert all(batch % asked.world == 0 and abs(batch - asked.batch) < asked.world for batch in refused.batches), asked
    if asked.policy == "nearest" and asked.batch >= asked.world:
        nearest = min(abs(batch - asked.batch) for batch in refused.batches)
        assert nearest > asked.tolerance * asked.batch, asked


def test_of_two_batches_that_are_equally_near_the_smaller_is_taken() -> None:
    plan = plan_batch(6, world_size=4, on_indivisible="nearest", tolerance=0.5)
    assert isinstance(plan, BatchPlan) and plan.effective_batch_size == 4


def test_the_nearest_worlds_are_those_that_trying_all_finds() -> None:
    for batch, world in product(range(1, 200), range(1, 40)):
        dividing = [size for size in range(1, batch + 1) if batch % size == 0]
        below = max(size for size in dividing if size <= world)
        above = min((size for size in dividing if size >= world), default=below)
        assert nearest_worlds(batch, world) == tuple(dict.fromkeys((below, above)))


def test_the_largest_divisor_is_the_one_that_trying_all_finds() -> None:
    for number, most in product(range(1, 200), range(1, 30)):
        assert largest_divisor(number, at_most=most) == max(d for d in range(1, most + 1) if number % d == 0)


def test_absurd_numbers_are_planned_and_refused_at_once() -> None:
    plan = plan_batch(10**15, world_size=10**3, limits=MicroBatchLimits(7))
    assert isinstance(plan, BatchPlan)
    assert (plan.micro_batch_size, plan.gradient_accumulation_steps) == (7, -(-(10**12) // 7))
    refused = plan_batch(10**15 + 1, world_size=10**3)
    assert isinstance(refused, Indivisible)
    assert all((10**15 + 1) % world == 0 for world in refused.worlds)


def test_the_fewest_micro_steps_are_those_that_trying_all_finds() -> None:
    for batch, world, largest in product(range(1, 25), range(1, 5), range(1, 8)):
        plan = plan_batch(batch, world_size=world, limits=MicroBatchLimits(largest), on_indivisible="uneven")
        if isinstance(plan, BatchPlan):
            most = max(len(range(rank, batch, world)) for rank in range(world))
            fewest = next(steps for steps in range(1, 25) if steps * largest >= most)
            smallest = next(size for size in range(1, largest + 1) if size * fewest >= most)
            assert (plan.gradient_accumulation_steps, plan.micro_batch_size) == (fewest, smallest)


def test_many_sizes_are_described_in_groups() -> None:
    assert describe_runs(((16, 1), (15, 3))) == "16, 15, 15, 15"
    assert describe_runs(((16, 29), (15, 3))) == "16 x 29 + 15 x 3"
