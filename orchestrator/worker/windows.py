"""Which samples this rank fetches, window by window: the plan's own functions, walked from any position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.plan.batch import WindowShares, rank_positions, window_shares
from orchestrator.plan.mixture import SampleOrder
from orchestrator.worker.data.datasets import Draw
from orchestrator.worker.inputs import Inputs

_AHEAD_SAMPLES = 1024

_Take = Callable[[range], tuple[list[int], list[int]]]
"""Ids and passes at positions of the order."""


Lengths = Callable[[list[int]], list[int]]
"""Sample ids to the samples' lengths."""


def windows_of(inputs: Inputs, *, world_size: int, rank: int, lengths: Lengths | None = None) -> Windows:
    """The windows of an attempt as one rank sees them; `lengths` where samples are grouped by them."""
    plan = inputs.plan
    return Windows(
        order=inputs.order,
        total_samples=plan.schedule.total_samples,
        effective_batch_size=plan.batch.effective_batch_size,
        largest_micro_batch=plan.batch.largest_micro_batch,
        micro_multiple=plan.batch.micro_multiple,
        world_size=world_size,
        rank=rank,
        lengths=lengths,
    )


@dataclass(frozen=True)
class Windows:
    """The windows of a run as one rank sees them; only the last one may be short."""

    order: SampleOrder
    total_samples: int
    effective_batch_size: int
    largest_micro_batch: int | None
    micro_multiple: int
    world_size: int
    rank: int
    lengths: Lengths | None = None
    """Where samples of about one length are to be computed together; None: in the order of positions."""
    _parts: dict[int, list[range]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """This rank's micro-batches in a window of so many samples, as positions from its beginning: two sizes at most."""

    def size_at(self, consumed_samples: int) -> int:
        """Samples in the window that begins there: the effective batch, or what is left of the run."""
        return min(self.effective_batch_size, self.total_samples - consumed_samples)

    def shares_at(self, consumed_samples: int) -> WindowShares:
        """How the window that begins there is shared among ranks and micro-steps."""
        return window_shares(
            self.size_at(consumed_samples),
            world_size=self.world_size,
            largest_micro_batch=self.largest_micro_batch,
            micro_multiple=self.micro_multiple,
        )

    def samples_by_rank(self) -> list[int]:
        """Samples that each rank works on in a full window; for an empty micro-batch one stands in."""
        shares = self.shares_at(0)
        return [sum(max(1, size) for size in sizes) for sizes in shares]

    def num_micro_steps_at(self, consumed_samples: int) -> int:
        """Micro-steps of every rank in the window that begins there."""
        return len(self._parts_at(consumed_samples))

    def draws_at(self, consumed_samples: int) -> list[Draw]:
        """This rank's micro-batches in the window that begins there."""
        return self._draws(consumed_samples, self._looked_up)

    def _parts_at(self, consumed_samples: int) -> list[range]:
        size = self.size_at(consumed_samples)
        if size not in self._parts:
            self._parts[size] = rank_positions(self.shares_at(consumed_samples), start=0, rank=self.rank)
        return self._parts[size]

    def draws_from(self, consumed_samples: int) -> Iterator[Draw]:
        """All micro-batches of this rank from there to the end of the run, across epoch ends.

        The order is asked for several small windows at a time: each answer costs what a short step notices.
        """
        while consumed_samples < self.total_samples:
            num_windows = max(1, _AHEAD_SAMPLES // self.effective_batch_size)
            end = min(consumed_samples + num_windows * self.effective_batch_size, self.total_samples)
            take = self._looked_up if num_windows == 1 else self._taken_from(range(consumed_samples, end))
            while consumed_samples < end:
                yield from self._draws(consumed_samples, take)
                consumed_samples += self.size_at(consumed_samples)

    def _draws(self, start: int, take: _Take) -> list[Draw]:
        if self.lengths is not None:
            take = self._sorted(start, take, self.lengths)
        parts = (range(start + part.start, start + part.stop) for part in self._parts_at(start))
        return [_draw(part, start, take) for part in parts]

    def _sorted(self, start: int, take: _Take, lengths: Lengths) -> _Take:
        """The same samples of the window at `start`, its positions dealt out by their lengths."""
        size = self.size_at(start)
        ids, passes = take(range(start, start + size))
        by_length = dealt(self.shares_at(start), lengths(ids))

        def take_sorted(positions: range) -> tuple[list[int], list[int]]:
            places = [by_length[position - start] for position in positions]
            return [ids[place] for place in places], [passes[place] for place in places]

        return take_sorted

    def _looked_up(self, positions: range) -> tuple[list[int], list[int]]:
        ids, passes = self.order.draws(positions)
        return ids.tolist(), passes.tolist()

    def _taken_from(self, ahead: range) -> _Take:
        ids, passes = self._looked_up(ahead)

        def take(positions: range) -> tuple[list[int], list[int]]:
            at = slice(positions.start - ahead.start, positions.stop - ahead.start)
            return ids[at], passes[at]

        return take


def dealt(shares: WindowShares, lengths: Sequence[int]) -> list[int]:
    """For each position of a window, rank by rank and micro-step by micro-step, the sample that goes there.

    Samples go from the shortest to the longest to one micro-step after the other, and within it to the ranks in turn:
    what a micro-step pads is little, and all ranks have about as much to do in it.
    """
    by_length = iter(sorted(range(len(lengths)), key=lambda place: (lengths[place], place)))
    given: list[list[list[int]]] = [[[] for _ in sizes] for sizes in shares]
    for step in range(len(shares[0])):
        left = [sizes[step] for sizes in shares]
        while any(left):
            for rank, number in enumerate(left):
                if number:
                    given[rank][step].append(next(by_length))
                    left[rank] -= 1
    return [place for of_rank in given for of_step in of_rank for place in of_step]


def _draw(positions: range, start: int, take: _Take) -> Draw:
    """One micro-batch; for an empty one a sample of the same window stands in."""
    stand_in = max(start, positions.start - 1)
    ids, passes = take(positions or range(stand_in, stand_in + 1))
    return Draw(tuple(ids), tuple(passes), len(positions))
