"""Which samples this rank fetches, window by window: the plan's own functions, walked from any position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.plan.batch import WindowShares, rank_positions, window_shares
from orchestrator.plan.mixture import SampleOrder
from orchestrator.worker.data import Draw


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

    def num_micro_steps_at(self, consumed_samples: int) -> int:
        """Micro-steps of every rank in the window that begins there."""
        return len(self.shares_at(consumed_samples)[0])

    def draws_at(self, consumed_samples: int) -> list[Draw]:
        """This rank's micro-batches in the window that begins there."""
        parts = rank_positions(self.shares_at(consumed_samples), start=consumed_samples, rank=self.rank)
        return [self._draw(part, consumed_samples) for part in parts]

    def draws_from(self, consumed_samples: int) -> Iterator[Draw]:
        """All micro-batches of this rank from there to the end of the run, across epoch ends."""
        while consumed_samples < self.total_samples:
            yield from self.draws_at(consumed_samples)
            consumed_samples += self.size_at(consumed_samples)

    def _draw(self, positions: range, start: int) -> Draw:
        stand_in = max(start, positions.start - 1)
        ids, passes = self.order.draws(positions or range(stand_in, stand_in + 1))
        return Draw(tuple(ids.tolist()), tuple(passes.tolist()), len(positions))
