"""Validation on all ranks: every sample exactly once, sums and counts added in fp64; and something to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn import functional

from orchestrator.plan.batch import balanced
from orchestrator.recipe.data import Loader
from orchestrator.worker.data.datasets import Datasets, Draw, MicroBatch
from orchestrator.worker.data.loader import MicroBatches, data_loader
from orchestrator.worker.loss import Objective
from orchestrator.worker.measures import Measure
from orchestrator.worker.memory_watch import MemoryWatch
from orchestrator.worker.precision import Precision, call_model
from orchestrator.worker.preemption import NUM_VOTES, StopRequest, agreed_stop
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.world import Peers


class Evaluator:
    """Loss and metrics on validation sets, each shared among the ranks in contiguous parts."""

    def __init__(
        self,
        sets: Mapping[str, Datasets],
        objective: Objective,
        precision: Precision,
        peers: Peers,
        options: Loader,
        *,
        largest_batch: int,
        memory: MemoryWatch,
        pulse: Pulse,
    ) -> None:
        self._measures = (Measure("loss", objective.loss), *objective.metrics)
        self._precision = precision
        self._memory = memory
        self._pulse = pulse
        self._peers = peers
        self._num_samples = sum(map(len, sets.values()))
        self._num_evaluated = 0
        world = peers.world
        self._loaders: dict[str, Iterable[MicroBatch]] = {
            name: data_loader(
                part,
                share_of(len(part), world_size=world.world_size, rank=world.rank, largest_batch=largest_batch),
                options,
                device=peers.device,
                persistent=True,
            )
            for name, part in sets.items()
        }

    @property
    def has_sets(self) -> bool:
        return bool(self._loaders)

    def run(self, model: torch.nn.Module, stop: StopRequest) -> tuple[dict[str, float] | None, str | None]:
        """The metrics by their journal names, and what asks for the end on any rank: a signal, or DEADLINE.

        It cuts the evaluation short on the rank that sees it; where samples are missing in the end, the metrics
        are None on all ranks.
        """
        self._num_evaluated = 0
        model.eval()
        with torch.no_grad():
            sums = [self._sums(model, loader, stop) for loader in self._loaders.values()]
        model.train()
        rows = self._of_one_size([row for one in sums for row in one])
        *numbers, num_evaluated = self._peers.sum(torch.cat(rows), *stop.as_votes(), self._num_evaluated)
        complete = num_evaluated == self._num_samples
        sizes = [row.numel() for row in rows]
        return dict(self._named(numbers, sizes)) if complete else None, agreed_stop(numbers[-NUM_VOTES:])

    def _of_one_size(self, rows: list[torch.Tensor]) -> list[torch.Tensor]:
        """`rows`, as long on this rank as on the others: one without samples has seen no vector."""
        if all(measure.finish is None for measure in self._measures):
            return rows
        sizes = self._peers.gather([row.numel() for row in rows])
        longest = [int(max(of_ranks)) for of_ranks in zip(*sizes, strict=True)]
        return [functional.pad(row, (0, size - row.numel())) for row, size in zip(rows, longest, strict=True)]

    def close(self) -> None:
        """End the loader processes."""
        self._loaders.clear()

    def _sums(self, model: torch.nn.Module, loader: Iterable[MicroBatch], stop: StopRequest) -> list[torch.Tensor]:
        """This rank's count and sums, by measure: fp64, shape (1 + numbers,). Zeros where it has no samples."""
        rows = [torch.zeros(2, dtype=torch.float64, device=self._peers.device) for _ in self._measures]
        for batch in MicroBatches(loader):
            if stop.is_set:
                break
            with self._memory.evaluation(batch.num_samples), self._precision.forward_context():
                inputs, targets = self._precision.place((batch.inputs, batch.targets))
                outputs = call_model(model, inputs)
                given = [(model, inputs) if measure.of_model else (outputs,) for measure in self._measures]
                pairs = [m.function(*words, targets) for m, words in zip(self._measures, given, strict=True)]
            for index, (measure, (value, count)) in enumerate(zip(self._measures, pairs, strict=True)):
                rows[index] = _added(rows[index], measure.summed(value, self._peers.device), count)
            self._num_evaluated += batch.num_samples
            self._pulse.beat()
        return rows

    def _named(self, numbers: list[float], sizes: list[int]) -> Iterator[tuple[str, float]]:
        """`val/accuracy`, or `val/<set>/accuracy` where there are several sets; nothing where nothing counted."""
        ends = list(accumulate(sizes, initial=0))
        rows = iter([numbers[begin:end] for begin, end in pairwise(ends)])
        for name in self._loaders:
            prefix = f"val/{name}" if len(self._loaders) > 1 else "val"
            for measure in self._measures:
                count, *sums = next(rows)
                if count:
                    yield from ((f"{prefix}/{told}", value) for told, value in measure.told(sums, count))


def _added(row: torch.Tensor, sums: torch.Tensor, count: Any) -> torch.Tensor:
    """A row with one more batch in it: a vector is as long as the first one that is not."""
    grown = functional.pad(row, (0, max(0, 1 + sums.numel() - row.numel())))
    grown[0] += count
    grown[1 : 1 + sums.numel()] += sums
    return grown


def share_of(num_samples: int, *, world_size: int, rank: int, largest_batch: int) -> list[Draw]:
    """The draws of `rank`: a contiguous part of the set in its own order, none where ranks outnumber samples."""
    ends = list(accumulate(balanced(num_samples, world_size), initial=0))
    share = range(ends[rank], ends[rank + 1])
    parts = (tuple(share[first : first + largest_batch]) for first in range(0, len(share), largest_batch))
    return [Draw(ids, (0,) * len(ids), len(ids)) for ids in parts]
