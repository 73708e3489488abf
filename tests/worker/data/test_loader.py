"""Loader processes change the speed and nothing else, and outlive the signals that a step's processes get."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from orchestrator.files import read_json
from orchestrator.plan.mixture import order_of
from orchestrator.recipe.data import Dataset, Loader
from orchestrator.worker.data.datasets import Datasets, open_datasets, stacked
from orchestrator.worker.data.loader import MicroBatches, data_loader
from orchestrator.worker.targets import UserCode
from orchestrator.worker.windows import Windows
from tests.support.worlds import make_run, sample_ids_of, world_of
from tests.worker.recipes import CODE, POINTS, recipe


@pytest.fixture(scope="module")
def datasets() -> Datasets:
    declared = [
        Dataset(name="first", target="data:Points", args={"size": 37, "noise": 0.1}, num_samples=37),
        Dataset(name="second", target="data:Points", args={"size": 24, "seed": 1}, num_samples=24),
    ]
    return open_datasets(UserCode(CODE), declared, seed=5, where="datasets")


def windows(*, world_size: int = 1, rank: int = 0) -> Windows:
    order = order_of(5, [("first", 37), ("second", 24)])
    return Windows(
        order,
        total_samples=130,
        effective_batch_size=16,
        largest_micro_batch=5,
        micro_multiple=1,
        world_size=world_size,
        rank=rank,
    )


def fetched(
    datasets: Datasets, workers: int, *, start: int = 0, world_size: int = 1
) -> dict[tuple[int, int], torch.Tensor]:
    """The inputs by (pass, sample id), over all ranks."""
    found = {}
    for rank in range(world_size):
        plan = windows(world_size=world_size, rank=rank)
        loader = data_loader(datasets, plan.draws_from(start), Loader(workers=workers), device=torch.device("cpu"))
        batches = MicroBatches(loader)
        for draw in plan.draws_from(start):
            batch = next(batches)
            assert tuple(batch.ids) == draw.ids[: draw.num_samples]
            found |= dict(zip(zip(draw.passes, draw.ids, strict=True), batch.inputs[: draw.num_samples], strict=False))
        batches.close()
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_the_order_and_the_augmentations_are_the_same_for_any_number_of_loader_processes_and_ranks(
    datasets: Datasets,
) -> None:
    """Items of the first dataset get random noise: it hangs on the seed, the pass and the sample alone."""
    reference = fetched(datasets, 0)
    assert len(reference) == 130
    assert not any(torch.equal(reference[0, i], reference[1, i]) for i in range(37))
    others = [fetched(datasets, 1), fetched(datasets, 3), fetched(datasets, 0, world_size=3)]
    assert all(torch.equal(other[which], value) for other in others for which, value in reference.items())
    resumed = fetched(datasets, 1, start=48)
    assert len(resumed) == 130 - 48
    assert all(torch.equal(value, reference[which]) for which, value in resumed.items())


def test_fetching_leaves_the_models_random_numbers_alone(datasets: Datasets) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fetched(datasets, 0)
    assert torch.equal(torch.rand(1), expected)


def test_an_empty_share_fetches_one_sample_that_counts_for_nothing() -> None:
    draws = [windows(world_size=4, rank=rank).draws_at(128) for rank in range(4)]
    assert [[draw.num_samples for draw in of_rank] for of_rank in draws] == [[1], [1], [0], [0]]
    assert all(len(draw.ids) == 1 for of_rank in draws for draw in of_rank)


@pytest.mark.parametrize("effective_batch_size", [3, 16, 1500])
def test_draws_taken_ahead_are_those_of_each_window(effective_batch_size: int) -> None:
    """Several small windows at a time, a large one alone, across passes and to the short end."""
    for rank in range(3):
        one = replace(windows(world_size=3, rank=rank), effective_batch_size=effective_batch_size, total_samples=4000)
        starts = range(48 * effective_batch_size, 4000, effective_batch_size) or range(1000, 4000, 1500)
        assert list(one.draws_from(starts.start)) == [draw for start in starts for draw in one.draws_at(start)]


@pytest.mark.parametrize("second", [torch.tensor(1), 2, "three"])
def test_items_that_are_stacked_at_once_are_what_torch_collates(second: object) -> None:
    items = [(torch.arange(3.0) + number, second) for number in range(4)]
    (one, two), (expected_one, expected_two) = stacked(items), default_collate(items)
    assert torch.equal(one, expected_one)
    assert torch.equal(two, expected_two) if isinstance(expected_two, torch.Tensor) else two == expected_two


def test_loader_processes_outlive_a_signal_to_the_whole_process_group(tmp_path: Path) -> None:
    """As Slurm does it: every process of the step is told to end, the loaders too, and the step is still finished."""
    run = make_run(tmp_path / "run", recipe(POINTS, loader={"workers": 2}), CODE)
    with world_of(run, 1, DELAY_S="0.02") as world:
        world.wait_for_step(4)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.killpg(world.ranks[0].pid, number)
        assert world.wait() == [0], world.log()
        stop = read_json(world.attempt.stop)
        assert "killed by signal" not in world.log()
    assert max(sample_ids_of(run)) == stop["step"]
