"""How one window arrives on a rank: its micro-batches, and what counts in it on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from orchestrator.worker.data.bad_samples import BadSamples
from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.own_time import OwnTime
from orchestrator.worker.windows import Windows
from orchestrator.worker.world import Peers


@dataclass(slots=True)
class Window:
    """One window on this rank."""

    count: int
    """What counts in it, on all ranks."""
    num_micro_steps: int
    batches: Iterable[MicroBatch]
    fetched: Sequence[MicroBatch]
    """All of them, where they had to be here before it was known what counts; else none."""


@dataclass(frozen=True)
class Intake:
    """Takes windows from the stream of this rank's micro-batches."""

    windows: Windows
    count: Callable[[Any], Any] | None
    """`f(targets) -> int`, what counts in a micro-batch; None where a sample counts 1."""
    bad_samples: BadSamples
    peers: Peers
    own_time: OwnTime = field(default_factory=OwnTime)

    def counts_of(self, batch: MicroBatch) -> int:
        """What counts in one micro-batch, before its forward pass; 0 for an empty one."""
        if batch.num_samples == 0 or self.count is None:
            return batch.num_samples
        return int(self.count(batch.targets))

    def take(self, stream: Iterator[MicroBatch], *, step: int, consumed_samples: int) -> Window:
        """The window that begins there. Where its count is known before, nothing is sent; else this is a collective."""
        self.own_time.begin()
        num_micro_steps = self.windows.num_micro_steps_at(consumed_samples)
        batches = islice(stream, num_micro_steps)
        if self.count is None and not self.bad_samples.allowed:
            return Window(self.windows.size_at(consumed_samples), num_micro_steps, batches, ())
        fetched = list(batches)
        self.own_time.fetched()
        self.bad_samples.note(fetched, step)
        count = self.peers.sum_counts([sum(map(self.counts_of, fetched))])[0]
        self.own_time.met()
        return Window(count, num_micro_steps, fetched, fetched)
