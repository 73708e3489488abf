"""Loader processes changed on the way, the samples and their order not: one loader drains while the next one fills.

All loaders of a run take their draws from one iterator, so what the old one has asked for is followed by what the new
one asks for. Public parts of torch alone.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import active_children

import torch

from orchestrator.recipe.schema import Recipe
from orchestrator.worker.data.datasets import Datasets, Draw, MicroBatch
from orchestrator.worker.data.fetch_cost import FetchCost, FetchMeter
from orchestrator.worker.data.loader import MicroBatches, data_loader
from orchestrator.worker.preemption import signals_kept_from_children
from orchestrator.worker.tensors import num_bytes_of

OpenLoader = Callable[[Iterable[Draw], int, int], Iterable[MicroBatch]]
"""A loader of these draws, with so many processes, and so many micro-batches ready in each."""

_REAPED_WITHIN_S = 10.0
_MANY = "This DataLoader will create .* worker processes"
"""torch's advice to have no more processes than cores; whoever sets their number here has measured it."""


class _Lane:
    """One loader, and the draws that it has asked for."""

    def __init__(self, draws: Iterator[Draw], workers: int, prefetch: int) -> None:
        self._draws, self.workers, self.prefetch = draws, workers, prefetch
        self.pids: list[int] = []
        self.is_closed, self.is_broken, self.num_drawn, self._num_taken = False, False, 0, 0
        self._batches: Iterator[MicroBatch] = iter(())

    def begin(self, open_loader: OpenLoader) -> None:
        """Start its processes, and let them fetch. Raises OSError or RuntimeError where they cannot be had."""
        before = frozenset(active_children())
        try:
            with signals_kept_from_children(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", _MANY)
                self._batches = iter(open_loader(self, self.workers, self.prefetch))
        except (OSError, RuntimeError):
            for child in frozenset(active_children()) - before:  # torch waits long for each, since it heeds no SIGTERM
                child.kill()
            raise
        self.pids = [child.pid for child in frozenset(active_children()) - before if child.pid is not None]

    def __iter__(self) -> Iterator[Draw]:
        while not self.is_closed:
            draw = next(self._draws, None)
            if draw is None:
                return
            self.num_drawn += 1
            yield draw

    @property
    def is_drained(self) -> bool:
        return self.is_closed and self._num_taken == self.num_drawn

    def take(self) -> MicroBatch:
        try:
            batch = next(self._batches)
        except RuntimeError:
            self.is_broken = True
            raise
        self._num_taken += 1
        return batch

    def end(self) -> None:
        """End its processes; waits for them."""
        self._batches = iter(())


class LiveBatches(MicroBatches):
    """Micro-batches in the order of the draws, from a number of loader processes that may change between any two."""

    def __init__(self, draws: Iterable[Draw], open_loader: OpenLoader, *, workers: int, prefetch: int = 2) -> None:
        self.waited_s = 0.0
        self.costs: list[FetchCost] = []
        """Of the micro-batches that were measured, since somebody took them away."""
        self.batch_bytes = 0
        """Of one micro-batch, as the last that was measured came."""
        self._draws, self._open_loader = iter(draws), open_loader
        self._lanes = deque([_Lane(self._draws, workers, prefetch)])
        self._lanes[0].begin(open_loader)
        self._reapers: list[threading.Thread] = []

    @property
    def workers(self) -> int:
        """Loader processes that will fetch what is not asked for yet."""
        return self._lanes[-1].workers

    @property
    def prefetch(self) -> int:
        """Micro-batches that each of them has ready."""
        return self._lanes[-1].prefetch

    @property
    def pids(self) -> list[int]:
        """Of all loader processes, the newest loader's first."""
        return [pid for lane in reversed(self._lanes) for pid in lane.pids]

    @property
    def is_broken(self) -> bool:
        """Whether a loader had no micro-batch to give but an error."""
        return any(lane.is_broken for lane in self._lanes)

    @property
    def is_switching(self) -> bool:
        """Whether processes of an earlier number are still there: there are more than there should be, for a while."""
        self._reapers = [reaper for reaper in self._reapers if reaper.is_alive()]
        return len(self._lanes) > 1 or bool(self._reapers)

    def switch(self, workers: int, prefetch: int | None = None) -> float:
        """Go on with so many processes, and so many micro-batches ready in each (None: as many as before); what has
        been asked for comes first. Seconds that it took.

        Raises OSError where they cannot be had; then all stays as it is.
        """
        began, last = time.perf_counter(), self._lanes[-1]
        lane = _Lane(self._draws, workers, prefetch or last.prefetch)
        last.is_closed = True
        try:
            lane.begin(self._open_loader)
        except (OSError, RuntimeError) as error:
            if lane.num_drawn:
                raise RuntimeError(f"{workers} loader processes failed, and samples with them: {error}") from error
            last.is_closed = False
            raise OSError(str(error)) from error
        self._lanes.append(lane)
        return time.perf_counter() - began

    def __next__(self) -> MicroBatch:
        began = time.perf_counter()
        while len(self._lanes) > 1 and self._lanes[0].is_drained:
            self._reap(self._lanes.popleft())
        batch = self._lanes[0].take()
        if batch.cost is not None:
            if not self.costs:
                self.batch_bytes = num_bytes_of(batch)
            self.costs.append(batch.cost)
        self.waited_s += time.perf_counter() - began
        return batch

    def close(self) -> None:
        """End all loader processes, which may be fetching ahead."""
        for lane in self._lanes:
            lane.end()
        for reaper in self._reapers:
            reaper.join(_REAPED_WITHIN_S)

    def _reap(self, lane: _Lane) -> None:
        """Beside the loop: the end of a process takes longer than many a step."""
        self._reapers.append(threading.Thread(target=lane.end, name="loader-reaper", daemon=True))
        self._reapers[-1].start()


def open_stream(
    datasets: Datasets, draws: Iterable[Draw], recipe: Recipe, *, device: torch.device, workers: int, prefetch: int
) -> MicroBatches:
    """The micro-batches of a run; where the recipe lets its loader be tuned, from one that begins with `workers`, and
    `prefetch` micro-batches ready in each."""
    if recipe.workers_tuning == "off":
        return MicroBatches(data_loader(datasets, draws, recipe.loader, device=device))
    meter = FetchMeter()

    def open_loader(draws: Iterable[Draw], workers: int, prefetch: int) -> Iterable[MicroBatch]:
        options = recipe.loader.model_copy(update={"workers": workers, "prefetch": prefetch})
        return data_loader(datasets, draws, options, device=device, meter=meter)

    return LiveBatches(draws, open_loader, workers=workers, prefetch=prefetch)
