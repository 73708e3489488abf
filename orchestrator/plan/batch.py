"""How a window of samples is shared among ranks and micro-steps, exactly. Pure integers.

The loss is a sum divided by the window's global count, so micro-batches may be ragged and ranks may be uneven:
nothing is ever rounded away. The worker slices every window, the run's last short one too, with `window_shares`,
the very function the plan is made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

WindowShares = tuple[tuple[int, ...], ...]
"""Sizes of micro-batches, by rank and micro-step; all ranks have the same number of micro-steps."""

Runs = tuple[tuple[int, int], ...]
"""Sizes of a rank's micro-batches in their order, each (size, how many of it): short however many there are."""

_LARGEST_TRIED = 1_000_000
"""Nobody has more ranks: larger divisors are only found as cofactors."""


def balanced(total: int, num_parts: int) -> tuple[int, ...]:
    """`total` in `num_parts` parts that differ by at most one, the larger ones first."""
    return _expanded(_balanced(total, num_parts))


def window_shares(
    num_samples: int, *, world_size: int, largest_micro_batch: int | None, micro_multiple: int = 1
) -> WindowShares:
    """Share a window of `num_samples` among ranks, then micro-steps, with the fewest micro-steps.

    The sizes sum to `num_samples`; ranks differ by at most one sample, and so do the micro-batches of a rank, but
    where `micro_multiple` makes other sizes cheaper (see `rank_groups`). A rank that gets fewer samples than
    micro-steps has micro-batches of size 0: it still takes part in each.
    """
    groups = rank_groups(
        num_samples, world_size=world_size, largest_micro_batch=largest_micro_batch, micro_multiple=micro_multiple
    )
    return tuple(sizes for num_ranks, runs in groups for sizes in (_expanded(runs),) * num_ranks)


def rank_groups(
    num_samples: int, *, world_size: int, largest_micro_batch: int | None, micro_multiple: int = 1
) -> tuple[tuple[int, Runs], ...]:
    """`window_shares` in short: at most two groups of ranks, each (number of ranks, their micro-batches).

    A kernel that works on multiples of `micro_multiple` rows pads each micro-batch up to one. Sizes that are such
    multiples, the remainder last, replace balanced ones where they pad less in sum, never for more micro-steps.
    """
    share, num_larger = divmod(num_samples, world_size)
    most = share + (num_larger > 0)
    limit = largest_micro_batch or max(most, 1)
    num_micro_steps = max(1, -(-most // limit))
    counts = {share + 1: num_larger, share: world_size - num_larger}
    return tuple(
        (num_ranks, _micro_batches(samples, num_micro_steps, limit, micro_multiple))
        for samples, num_ranks in counts.items()
        if num_ranks
    )


def _balanced(total: int, num_parts: int) -> Runs:
    size, num_larger = divmod(total, num_parts)
    return tuple(run for run in ((size + 1, num_larger), (size, num_parts - num_larger)) if run[1])


def _expanded(runs: Runs) -> tuple[int, ...]:
    return tuple(size for size, count in runs for _ in range(count))


def _micro_batches(samples: int, num_micro_steps: int, limit: int, multiple: int) -> Runs:
    """One rank's `samples` in `num_micro_steps` parts of at most `limit`: balanced, or aligned where that pads less."""
    even = _balanced(samples, num_micro_steps)
    aligned = _aligned(samples, num_micro_steps, limit, multiple)
    return aligned if aligned and padded_rows(aligned, multiple) < padded_rows(even, multiple) else even


def padded_rows(runs: Runs, multiple: int) -> int:
    """Rows that a kernel works on when each micro-batch is padded up to a multiple of `multiple`."""
    return sum(-(-size // multiple) * multiple * count for size, count in runs)


def _aligned(samples: int, num_micro_steps: int, limit: int, multiple: int) -> Runs | None:
    """Multiples of `multiple`, the remainder last, the largest as small as can be; None where they do not fit."""
    num_units = -(-samples // multiple)
    if multiple == 1 or num_micro_steps == 1 or num_units < num_micro_steps:
        return None
    units = _balanced(num_units, num_micro_steps)
    if units[0][0] * multiple > limit:
        units = ((limit // multiple, num_micro_steps),)
    *more, (size, count) = [(size * multiple, count) for size, count in units]
    last = samples - sum(size * count for size, count in more) - size * (count - 1)
    if last > limit:
        return None
    return (*more, (size, count)) if last == size else (*more, *(((size, count - 1),) if count > 1 else ()), (last, 1))


def rank_positions(shares: WindowShares, *, start: int, rank: int) -> list[range]:
    """The positions in the global order of each micro-batch of `rank`, for a window that begins at `start`.

    Ranks lie one after the other in the window, and so do a rank's micro-batches: together they tile it.
    """
    first = start + sum(map(sum, shares[:rank]))
    ends = list(accumulate(shares[rank], initial=first))
    return [range(begin, end) for begin, end in pairwise(ends)]


@dataclass(frozen=True)
class BatchPlan:
    """The batch the optimizer sees, and how one full window of it is shared. In samples."""

    effective_batch_size: int
    requested: int | None
    micro_batch_size: int
    """The largest micro-batch of any rank."""
    largest_micro_batch: int | None
    """What no micro-batch may exceed; None for no limit. The one size of all, where equal ones are wanted."""
    gradient_accumulation_steps: int
    kind: Literal["equal", "ragged", "uneven"]
    """equal: every micro-batch has one size; ragged: a rank's differ; uneven: ranks differ by one sample."""
    micro_multiple: int = 1
    """Micro-batches are multiples of it where that pads less and takes no more micro-steps."""
    sequence_length: int | None = None
    """Tokens in every sample, where the recipe counts in tokens."""

    @property
    def unit(self) -> Literal["samples", "tokens"]:
        """What the recipe counts its batch in."""
        return "samples" if self.sequence_length is None else "tokens"

    @property
    def is_declared(self) -> bool:
        """Whether the recipe fixes the effective batch; else the allocation decides it."""
        return self.requested == self.effective_batch_size

    @property
    def effective_in_unit(self) -> int:
        """The effective batch in the recipe's unit."""
        return self.effective_batch_size * (self.sequence_length or 1)

    @property
    def requested_in_unit(self) -> int | None:
        """The batch that was asked for, in the recipe's unit; None where it is an output."""
        return None if self.requested is None else self.requested * (self.sequence_length or 1)

    def groups(self, world_size: int) -> tuple[tuple[int, Runs], ...]:
        """How the ranks share one full window; see `rank_groups`."""
        return rank_groups(
            self.effective_batch_size,
            world_size=world_size,
            largest_micro_batch=self.largest_micro_batch,
            micro_multiple=self.micro_multiple,
        )


@dataclass(frozen=True)
class Indivisible:
    """Why no plan exists, with the neighbours that would work."""

    effective_batch_size: int
    world_size: int
    worlds: tuple[int, ...]
    batches: tuple[int, ...]


@dataclass(frozen=True)
class NothingFits:
    """No plan exists on any world: not one sample fits a GPU."""

    effective_batch_size: int


@dataclass(frozen=True)
class MicroBatchLimits:
    """What a recipe, or a GPU's memory, asks of micro-batches; in samples."""

    largest: int | None = None
    """None for no limit; 0 when not one sample fits."""
    equal: bool = False
    """Every micro-batch has one size: the largest divisor of a rank's samples that fits."""
    multiple: int = 1


def plan_batch(
    effective_batch_size: int,
    *,
    world_size: int,
    limits: MicroBatchLimits | None = None,
    on_indivisible: Literal["refuse", "nearest", "uneven"] = "refuse",
    tolerance: float = 0.0,
) -> BatchPlan | Indivisible | NothingFits:
    """The batch on `world_size` ranks: exact whenever they divide it, else as `on_indivisible` says.

    `nearest` takes the closest multiple of the world size (the smaller one of two), if it lies within `tolerance`
    as a fraction of the batch. `uneven` keeps the batch exact, and ranks differ by one sample.
    """
    wanted, limits = effective_batch_size, limits or MicroBatchLimits()
    if limits.largest is not None and limits.largest < 1:
        return NothingFits(wanted)
    batches = nearest_batches(wanted, world_size)
    batch = wanted
    if wanted % world_size and on_indivisible == "nearest":
        nearest = min(batches, key=lambda batch: (abs(batch - wanted), batch))
        batch = nearest if abs(nearest - wanted) <= tolerance * wanted else wanted
    uneven = on_indivisible == "uneven"
    if wanted < world_size or (batch % world_size and not uneven):
        return Indivisible(wanted, world_size, nearest_worlds(wanted, world_size), batches)
    return _shared(batch, wanted, world_size, limits)


def batch_per_gpu(per_gpu: int, *, world_size: int, limits: MicroBatchLimits | None = None) -> BatchPlan | NothingFits:
    """The batch as an output: `per_gpu` samples on each rank in every optimizer step."""
    limits = limits or MicroBatchLimits()
    if limits.largest is not None and limits.largest < 1:
        return NothingFits(per_gpu * world_size)
    return _shared(per_gpu * world_size, None, world_size, limits)


def _shared(batch: int, requested: int | None, world_size: int, limits: MicroBatchLimits) -> BatchPlan:
    largest = limits.largest
    if limits.equal and largest is not None:
        largest = largest_divisor(-(-batch // world_size), at_most=largest)
    groups = rank_groups(batch, world_size=world_size, largest_micro_batch=largest, micro_multiple=limits.multiple)
    sizes = [size for _, runs in groups for size, _ in runs]
    return BatchPlan(
        effective_batch_size=batch,
        requested=requested,
        micro_batch_size=max(sizes),
        largest_micro_batch=largest,
        gradient_accumulation_steps=sum(count for _, count in groups[0][1]),
        kind="uneven" if len(groups) > 1 else "equal" if len(set(sizes)) == 1 else "ragged",
        micro_multiple=limits.multiple,
    )


def divisors(number: int) -> list[int]:
    """The divisors of `number`, ascending, in O(sqrt(number)); past 10^12 only those to 10^6 and their cofactors."""
    tried = range(1, min(math.isqrt(number), _LARGEST_TRIED) + 1)
    small = [divisor for divisor in tried if number % divisor == 0]
    return small + [number // divisor for divisor in reversed(small) if divisor * divisor != number]


def largest_divisor(number: int, *, at_most: int) -> int:
    """The largest divisor of `number` that is at most `at_most`."""
    return max(divisor for divisor in divisors(number) if divisor <= at_most)


def nearest_worlds(batch: int, world_size: int) -> tuple[int, ...]:
    """The nearest divisors of `batch` at or below and at or above `world_size`."""
    worlds = divisors(batch)
    below = max(world for world in worlds if world <= world_size)
    above = min((world for world in worlds if world >= world_size), default=below)
    return tuple(dict.fromkeys((below, above)))


def nearest_batches(batch: int, world_size: int) -> tuple[int, ...]:
    """The multiples of `world_size` on both sides of `batch`, none of them zero."""
    below = batch // world_size * world_size
    return tuple(dict.fromkeys(size for size in (below, -(-batch // world_size) * world_size) if size))


def describe_runs(runs: Runs, *, most: int = 6) -> str:
    """'16, 15, 15, 15', or '16 x 29 + 15 x 3' when there are many."""
    if sum(count for _, count in runs) <= most:
        return ", ".join(map(str, _expanded(runs)))
    return " + ".join(f"{size} x {count}" for size, count in runs)
