"""torch's DataLoader, fed with this rank's draws. Loader processes change the speed and never the order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, default_collate

from orchestrator.recipe.data import Loader
from orchestrator.worker.data.datasets import CollateDraw, Datasets, Draw, Metered, MicroBatch, stacked
from orchestrator.worker.data.fetch_cost import FetchMeter
from orchestrator.worker.preemption import signals_kept_from_children


class MicroBatches(Iterator[MicroBatch]):
    """Micro-batches in the order of the draws, and how long they were waited for (`waited_s`, in seconds, summed)."""

    def __init__(self, loader: Iterable[MicroBatch]) -> None:
        self.waited_s = 0.0
        with signals_kept_from_children():
            self._batches: Iterator[MicroBatch] = iter(loader)

    def __next__(self) -> MicroBatch:
        began = time.perf_counter()
        batch: MicroBatch = next(self._batches)
        self.waited_s += time.perf_counter() - began
        return batch

    def close(self) -> None:
        """End the loader processes, which may be fetching ahead."""
        self._batches = iter(())


@dataclass(frozen=True)
class FetchedHere:
    """Micro-batches that the rank fetches itself, each when it is asked for: no loader is needed for that."""

    datasets: Datasets
    draws: Iterable[Draw]
    meter: FetchMeter | None = None

    def __iter__(self) -> Iterator[MicroBatch]:
        collate, source = self.datasets.collate, _source(self.datasets, self.meter)
        collated = CollateDraw(stacked if collate is default_collate else collate, self.meter)
        for draw in self.draws:
            yield collated(source.__getitems__(draw))


def _source(datasets: Datasets, meter: FetchMeter | None) -> Datasets | Metered:
    return datasets if meter is None else Metered(datasets, meter)


def data_loader(
    datasets: Datasets,
    draws: Iterable[Draw],
    options: Loader,
    *,
    device: torch.device,
    persistent: bool = False,
    meter: FetchMeter | None = None,
) -> Iterable[MicroBatch]:
    """A loader of one micro-batch per draw. With `persistent`, its processes stay for the next pass over `draws`.

    Processes are forked: the user's modules have names that a fresh interpreter could not import. The generator is the
    loader's own, so the number of loader processes never shifts the random numbers of the model.
    """
    workers, pins = options.workers, options.pin_memory and device.type == "cuda"
    if not workers and not pins:
        return FetchedHere(datasets, draws, meter)
    return DataLoader(
        _source(datasets, meter),  # type: ignore[arg-type]  # only __len__ and __getitems__ are asked of it
        batch_sampler=draws,  # type: ignore[arg-type]  # a draw goes to Datasets.__getitems__ as it is
        collate_fn=cast(Any, CollateDraw(datasets.collate, meter)),
        num_workers=workers,
        prefetch_factor=options.prefetch if workers else None,
        persistent_workers=persistent and workers > 0,
        multiprocessing_context="fork" if workers else None,
        pin_memory=pins,
        generator=torch.Generator(),
    )
