"""Loader processes that change on the way: the same samples with the same augmentations, in the same order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkProcess

import psutil
import pytest
import torch

from orchestrator.recipe.data import Loader
from orchestrator.worker.data.datasets import Datasets, Draw, MicroBatch
from orchestrator.worker.data.lanes import LiveBatches
from orchestrator.worker.data.loader import data_loader
from tests.support.waiting import wait_for
from tests.worker.data.test_loader import datasets, windows

__all__ = ["datasets"]

CPU = torch.device("cpu")


def live(datasets: Datasets, draws: Iterable[Draw], workers: int) -> LiveBatches:
    def open_loader(draws: Iterable[Draw], workers: int, prefetch: int) -> Iterable[MicroBatch]:
        return data_loader(datasets, draws, Loader(workers=workers, prefetch=prefetch), device=CPU)

    return LiveBatches(draws, open_loader, workers=workers)


@pytest.fixture
def loaders() -> Callable[[], list[psutil.Process]]:
    """Asks which processes this one has started since: other tests may have left some of their own."""
    others = frozenset(psutil.Process().children())
    return lambda: [process for process in psutil.Process().children() if process not in others]


def arrived(
    datasets: Datasets, switches: dict[int, int], *, workers: int, start: int = 0, world_size: int = 1, rank: int = 0
) -> list[MicroBatch]:
    """All micro-batches of a rank, with so many processes before the micro-batch of that number."""
    found, batches = [], live(datasets, windows(world_size=world_size, rank=rank).draws_from(start), workers)
    try:
        while True:
            if len(found) in switches:
                batches.switch(switches[len(found)])
            found.append(next(batches))
    except StopIteration:
        return found
    finally:
        batches.close()


def assert_same(found: list[MicroBatch], expected: list[MicroBatch]) -> None:
    assert [batch.ids for batch in found] == [batch.ids for batch in expected]
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(found, expected, strict=True))
    assert all(torch.equal(one.targets, other.targets) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param({7: 3}, id="up"),
        pytest.param({7: 1}, id="down"),
        pytest.param({7: 0}, id="to none"),
        pytest.param({0: 4}, id="before the first one"),
        pytest.param({32: 3}, id="before the last one"),
        pytest.param({33: 3}, id="after the last one"),
        pytest.param({1: 0, 9: 3, 10: 1, 11: 0, 30: 2}, id="again and again"),
        pytest.param({5: 3, 6: 1, 7: 2}, id="while the one before drains"),
        pytest.param({14: 3, 15: 1, 16: 0}, id="around the end of an epoch"),
        pytest.param(dict.fromkeys(range(0, 33, 3), 2), id="to as many as there are"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_augmentations_are_those_of_a_run_without_switches(
    datasets: Datasets, switches: dict[int, int], workers: int
) -> None:
    expected = arrived(datasets, {}, workers=0)
    assert len(expected) == 33
    assert_same(arrived(datasets, switches, workers=workers), expected)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_same_holds_on_several_ranks_and_across_a_resume(datasets: Datasets, rank: int) -> None:
    expected = arrived(datasets, {}, workers=0, world_size=2, rank=rank)
    switched = arrived(datasets, {4: 3, 9: 1}, workers=2, world_size=2, rank=rank)
    assert_same(switched, expected)
    num_before = 3 * len(windows(world_size=2, rank=rank).draws_at(0))
    resumed = arrived(datasets, {1: 0, 5: 2}, workers=3, start=48, world_size=2, rank=rank)
    assert_same(resumed, expected[num_before:])


def test_the_same_holds_where_processes_are_to_have_more_ready(datasets: Datasets) -> None:
    batches = live(datasets, windows().draws_from(0), workers=2)
    found = [next(batches) for _ in range(5)]
    batches.switch(2, 7)
    assert (batches.workers, batches.prefetch) == (2, 7)
    found += [next(batches) for _ in range(9)]
    batches.switch(3)
    assert (batches.workers, batches.prefetch) == (3, 7)
    found += list(batches)
    batches.close()
    assert_same(found, arrived(datasets, {}, workers=0))


def test_the_processes_of_before_are_gone_after_what_they_had_fetched(
    datasets: Datasets, loaders: Callable[[], list[psutil.Process]]
) -> None:
    batches = live(datasets, windows().draws_from(0), workers=3)
    next(batches)
    before = loaders()
    assert batches.switch(1) > 0 and (batches.workers, batches.is_switching) == (1, True)
    assert len(loaders()) == 4, "the one fills, while the three drain"
    for _ in range(8):
        next(batches)
    wait_for(lambda: not batches.is_switching)
    assert len(loaders()) == 1 and not any(process.is_running() for process in before)
    batches.close()
    wait_for(lambda: not loaders())


def test_the_end_leaves_no_process_behind_in_the_midst_of_a_switch(
    datasets: Datasets, loaders: Callable[[], list[psutil.Process]]
) -> None:
    batches = live(datasets, windows().draws_from(0), workers=2)
    batches.switch(3)
    next(batches)
    batches.close()
    wait_for(lambda: not loaders())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of torch's own half-built iterator
def test_where_no_more_processes_can_be_had_those_that_there_are_go_on(
    datasets: Datasets, loaders: Callable[[], list[psutil.Process]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = arrived(datasets, {}, workers=0)
    batches = live(datasets, windows().draws_from(0), workers=2)
    found = [next(batches)]
    start, started = ForkProcess.start, list[object]()

    def start_two(process: ForkProcess) -> None:
        if len(started) == 2:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(process)
        start(process)

    monkeypatch.setattr(ForkProcess, "start", start_two)
    began = time.monotonic()
    with pytest.raises(OSError, match="temporarily unavailable"):
        batches.switch(8)
    assert (batches.workers, batches.is_switching) == (2, False)
    assert time.monotonic() - began < 4.0, "nobody waits for processes that heed no SIGTERM"
    wait_for(lambda: len(loaders()) == 2)
    found += [next(batches) for _ in range(9)]
    monkeypatch.setattr(ForkProcess, "start", start)
    batches.switch(1)
    found += list(batches)
    batches.close()
    assert_same(found, expected)


def test_a_switch_leaves_the_models_random_numbers_alone(datasets: Datasets) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    arrived(datasets, {3: 2, 9: 0}, workers=1)
    assert torch.equal(torch.rand(1), expected)
