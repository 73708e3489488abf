"""How a window of samples is shared among ranks and micro-steps, exactly. Pure integers.

The loss is a sum divided by the window's global count, so micro-batches may be ragged and ranks may be uneven:
nothing is ever rounded away. The worker slices every window, the run's last short one too, with `window_shares`,
the very function the plan is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

WindowShares = tuple[tuple[int, ...], ...]
"""Sizes of micro-batches, by rank and micro-step; all ranks have the same number of micro-steps."""


def balanced(total: int, num_parts: int) -> tuple[int, ...]:
    """`total` in `num_parts` parts that differ by at most one, the larger ones first."""
    size, larger = divmod(total, num_parts)
    return (size + 1,) * larger + (size,) * (num_parts - larger)


def window_shares(num_samples: int, *, world_size: int, largest_micro_batch: int | None) -> WindowShares:
    """Share a window of `num_samples` among ranks, then micro-steps, with the fewest micro-steps.

    The sizes sum to `num_samples`; ranks differ by at most one sample, and so do the micro-batches of a rank.
    A rank that gets fewer samples than micro-steps has micro-batches of size 0: it still takes part in each.
    """
    shares = balanced(num_samples, world_size)
    limit = largest_micro_batch or max(shares[0], 1)
    num_micro_steps = max(1, -(-shares[0] // limit))
    return tuple(balanced(share, num_micro_steps) for share in shares)


def rank_positions(shares: WindowShares, *, start: int, rank: int) -> list[range]:
    """The positions in the global order of each micro-batch of `rank`, for a window that begins at `start`.

    Ranks lie one after the other in the window, and so do a rank's micro-batches: together they tile it.
    """
    first = start + sum(map(sum, shares[:rank]))
    ends = list(accumulate(shares[rank], initial=first))
    return [range(begin, end) for begin, end in pairwise(ends)]


@dataclass(frozen=True)
class BatchPlan:
    """The batch the optimizer sees, and how one full window of it is shared."""

    effective_batch_size: int
    requested: int | None
    micro_batch_size: int
    """The largest micro-batch of any rank."""
    largest_micro_batch: int | None
    """The recipe's limit on a micro-batch; None for no limit."""
    gradient_accumulation_steps: int
    kind: Literal["equal", "ragged", "uneven"]
    """equal: every micro-batch has one size; ragged: they differ by one; uneven: ranks differ by one."""


@dataclass(frozen=True)
class Indivisible:
    """Why no plan exists, with the neighbours that would work."""

    effective_batch_size: int
    world_size: int
    worlds: tuple[int, ...]
    batches: tuple[int, ...]


def plan_batch(
    effective_batch_size: int,
    *,
    world_size: int,
    largest_micro_batch: int | None = None,
    on_indivisible: Literal["refuse", "nearest", "uneven"] = "refuse",
    tolerance: float = 0.0,
) -> BatchPlan | Indivisible:
    """The batch on `world_size` ranks: exact whenever they divide it, else as `on_indivisible` says.

    `nearest` takes the closest multiple of the world size (the smaller one of two), if it lies within `tolerance`
    as a fraction of the batch. `uneven` keeps the batch exact, and ranks differ by one sample.
    """
    wanted = effective_batch_size
    below = wanted // world_size * world_size
    refusal = Indivisible(wanted, world_size, _nearest_worlds(wanted, world_size), _multiples(below, world_size))
    if wanted < world_size:
        return refusal
    if wanted % world_size and on_indivisible == "refuse":
        return refusal
    if wanted % world_size and on_indivisible == "nearest":
        nearest = min(refusal.batches, key=lambda batch: (abs(batch - wanted), batch))
        if abs(nearest - wanted) > tolerance * wanted:
            return refusal
        return _shared(nearest, wanted, world_size, largest_micro_batch)
    return _shared(wanted, wanted, world_size, largest_micro_batch)


def batch_per_gpu(per_gpu: int, *, world_size: int, largest_micro_batch: int | None = None) -> BatchPlan:
    """The batch as an output: `per_gpu` samples on each rank in every optimizer step."""
    return _shared(per_gpu * world_size, None, world_size, largest_micro_batch)


def _shared(batch: int, requested: int | None, world_size: int, largest_micro_batch: int | None) -> BatchPlan:
    shares = window_shares(batch, world_size=world_size, largest_micro_batch=largest_micro_batch)
    return BatchPlan(
        effective_batch_size=batch,
        requested=requested,
        micro_batch_size=shares[0][0],
        largest_micro_batch=largest_micro_batch,
        gradient_accumulation_steps=len(shares[0]),
        kind=_kind(shares),
    )


def _kind(shares: WindowShares) -> Literal["equal", "ragged", "uneven"]:
    if sum(shares[0]) != sum(shares[-1]):
        return "uneven"
    return "equal" if shares[0][0] == shares[0][-1] else "ragged"


def _nearest_worlds(batch: int, world_size: int) -> tuple[int, ...]:
    """The nearest divisors of `batch` at or below and at or above `world_size`."""
    below = next((world for world in range(min(world_size, batch), 0, -1) if batch % world == 0), 1)
    above = next((world for world in range(world_size, 4 * world_size + 1) if batch % world == 0), None)
    return tuple(dict.fromkeys(world for world in (below, above) if world is not None))


def _multiples(below: int, world_size: int) -> tuple[int, ...]:
    return tuple(batch for batch in (below, below + world_size) if batch)


def describe_sizes(sizes: Sequence[int], *, most: int = 6) -> str:
    """'16, 15, 15, 15', or '16 x 3 + 15 x 29' when there are many."""
    if len(sizes) <= most:
        return ", ".join(map(str, sizes))
    counts = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
    return " + ".join(f"{size} x {count}" for size, count in counts.items())
