"""Validation on all ranks: every sample exactly once, sums and counts added in fp64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

import torch

from orchestrator.plan.batch import balanced
from orchestrator.recipe.data import Loader
from orchestrator.worker.data.datasets import Datasets, Draw, MicroBatch
from orchestrator.worker.data.loader import MicroBatches, data_loader
from orchestrator.worker.loss import Objective, SumAndCount
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
        self._functions: dict[str, SumAndCount] = {"loss": objective.loss, **objective.metrics}
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
        *numbers, num_evaluated = self._peers.sum(torch.stack(sums).flatten(), *stop.as_votes(), self._num_evaluated)
        complete = num_evaluated == self._num_samples
        return dict(self._named(numbers)) if complete else None, agreed_stop(numbers[-NUM_VOTES:])

    def close(self) -> None:
        """End the loader processes."""
        self._loaders.clear()

    def _sums(self, model: torch.nn.Module, loader: Iterable[MicroBatch], stop: StopRequest) -> torch.Tensor:
        """This rank's (sum, count) of every function: fp64, shape (functions, 2). A rank without samples has zeros."""
        sums = torch.zeros(len(self._functions), 2, dtype=torch.float64, device=self._peers.device)
        for batch in MicroBatches(loader):
            if stop.is_set:
                break
            with self._memory.evaluation(batch.num_samples), self._precision.forward_context():
                inputs, targets = self._precision.place((batch.inputs, batch.targets))
                outputs = call_model(model, inputs)
                pairs = [function(outputs, targets) for function in self._functions.values()]
            for row, (value, count) in zip(sums, pairs, strict=True):
                row[0] += value
                row[1] += count
            self._num_evaluated += batch.num_samples
            self._pulse.beat()
        return sums

    def _named(self, numbers: list[float]) -> Iterator[tuple[str, float]]:
        """`val/accuracy`, or `val/<set>/accuracy` where there are several sets; nothing where nothing counted."""
        pairs = iter(zip(numbers[::2], numbers[1::2], strict=True))
        for name in self._loaders:
            prefix = f"val/{name}" if len(self._loaders) > 1 else "val"
            for metric in self._functions:
                value, count = next(pairs)
                if count:
                    yield f"{prefix}/{metric}", value / count


def share_of(num_samples: int, *, world_size: int, rank: int, largest_batch: int) -> list[Draw]:
    """The draws of `rank`: a contiguous part of the set in its own order, none where ranks outnumber samples."""
    ends = list(accumulate(balanced(num_samples, world_size), initial=0))
    share = range(ends[rank], ends[rank + 1])
    parts = (tuple(share[first : first + largest_batch]) for first in range(0, len(share), largest_batch))
    return [Draw(ids, (0,) * len(ids), len(ids)) for ids in parts]
