"""Mixtures in real runs: the same samples in every step on any world; data that ranks disagree about; bad samples."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.plan.mixture import Pool, computed
from orchestrator.recipe.data import Dataset
from orchestrator.run_dir import RunDir
from orchestrator.worker.data import order_files
from orchestrator.worker.data.content import content_of, unrepeatable
from orchestrator.worker.data.datasets import open_datasets
from orchestrator.worker.data.order_files import StoredPermutations
from orchestrator.worker.data.parts import MapPart
from orchestrator.worker.randomness import UseOfRandomness
from orchestrator.worker.targets import UserCode
from tests.support.worlds import events_of, failure_of, make_run, metrics_of, run_world, sample_ids_of, world_of
from tests.worker.recipes import CODE, POINTS, recipe

SIZES = {"large": 900, "middle": 61, "small": 7}
CORPORA = [
    {"name": name, "target": "data:Points", "args": {"size": size, "noise": 0.1}, "num_samples": size, "weight": weight}
    for (name, size), weight in zip(SIZES.items(), (0.6, 0.3, 0.1), strict=True)
]
MIXED = recipe(POINTS, datasets=CORPORA, mixture={"strategy": "weights"}, validation=[], metrics={})


def trained(folder: Path, wanted: dict[str, Any], world_size: int) -> RunDir:
    run = make_run(folder, wanted, CODE)
    run_world(run, world_size)
    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The mixture on one rank that fetches for itself."""
    return trained(tmp_path_factory.mktemp("alone") / "run", MIXED, 1)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 2), (2, 0), (4, 2)])
def test_a_mixture_has_the_same_samples_in_every_step_on_any_world(
    tmp_path: Path, alone: RunDir, world_size: int, workers: int
) -> None:
    """Items have noise of their own: equal losses say that it, too, hangs on the sample alone."""
    run = trained(tmp_path / "run", recipe(MIXED, loader={"workers": workers}), world_size)
    assert sample_ids_of(run) == sample_ids_of(alone)
    losses, expected = metrics_of(run, "train/loss"), metrics_of(alone, "train/loss")
    assert len(losses) == 21 and losses == pytest.approx(expected, rel=1e-12)


def test_every_prefix_of_a_run_holds_the_shares_and_the_journal_tells_the_passes(alone: RunDir) -> None:
    ids = list(itertools.chain.from_iterable(window for _, window in sorted(sample_ids_of(alone).items())))
    first_ids = list(itertools.accumulate(SIZES.values(), initial=0))
    positions = np.arange(1, len(ids) + 1)
    for number, share in enumerate((0.6, 0.3, 0.1)):
        own = (np.array(ids) >= first_ids[number]) & (np.array(ids) < first_ids[number + 1])
        assert np.abs(np.cumsum(own) - positions * share).max() < 1
    passes = metrics_of(alone, "data/small/passes")
    assert passes[1] == pytest.approx(16 * 0.1 / 7) and passes[21] == pytest.approx(322 * 0.1 / 7)


def test_ranks_that_disagree_about_the_data_are_named(tmp_path: Path) -> None:
    """The second node's file is another one. Every rank says the same, in one line for each that differs."""
    data = [{"name": "first", "target": "data:OfRank", "args": {"size": 37}, "num_samples": 37}]
    run = make_run(tmp_path / "run", recipe(POINTS, datasets=data), CODE)
    with world_of(run, 3) as world:
        assert all(world.wait())
        messages = {failure_of(world.attempt, rank)["message"] for rank in range(3)}
    assert messages == {
        "rank 2: dataset 'first' is not what rank 0 has (let every node read the same files; where items are random on "
        "purpose, give the dataset a `fingerprint`)"
    }


def opened(kind: str, **args: Any) -> Any:
    section = Dataset(name="points", target=f"data:{kind}", args={"size": 30, **args}, num_samples=30)
    return open_datasets(UserCode(CODE), [section], seed=5, where="datasets")


def test_what_a_dataset_holds_has_a_hash_that_changes_with_it() -> None:
    same, other = content_of(opened("Points")), content_of(opened("Points", seed=1))
    assert same == content_of(opened("Points")) and same != other
    assert content_of(opened("Augmented")) == content_of(opened("Augmented"))
    named = opened("Points")
    named.parts[0].dataset.fingerprint = "v7"
    assert content_of(named) not in (same, other)


def test_a_dataset_that_draws_from_what_nobody_seeds_is_compared_by_its_size_and_told(tmp_path: Path) -> None:
    assert content_of(opened("Unseeded")) == content_of(opened("Unseeded", seed=1))
    assert (unrepeatable(opened("Unseeded")), unrepeatable(opened("Augmented"))) == (["points"], [])
    data = [{"name": "points", "target": "data:Unseeded", "args": {"size": 30}, "num_samples": 30}]
    run = trained(tmp_path / "run", recipe(POINTS, datasets=data, duration={"steps": 1}, schedule={}), 1)
    assert events_of(run, "unrepeatable") == [{"dataset": "points"}]


TORN = [
    {"name": "good", "target": "data:Points", "args": {"size": 40}, "num_samples": 40},
    {"name": "torn", "target": "data:Torn", "args": {"size": 20, "each": 7}, "num_samples": 20},
]


def test_bad_samples_within_the_budget_count_for_nothing_on_any_world(tmp_path: Path) -> None:
    """60 samples in windows of 16; samples 0, 7 and 14 of the second dataset raise: the losses agree all the same."""
    wanted = recipe(POINTS, datasets=TORN, duration={"epochs": 2}, loader={"workers": 0, "bad_samples": 6})
    one, three = (trained(tmp_path / str(size), wanted, size) for size in (1, 3))
    for run in (one, three):
        bad = events_of(run, "bad_sample")
        assert sorted((event["dataset"], event["index"]) for event in bad) == [
            ("torn", i) for i in (0, 0, 7, 7, 14, 14)
        ]
        assert all(event["why"] == "ValueError: this one is torn" for event in bad)
        ids = [i for window in sample_ids_of(run).values() for i in window]
        assert len(ids) == 2 * 57 and not {40, 47, 54} & set(ids)
    assert sample_ids_of(one) == sample_ids_of(three)
    assert metrics_of(three, "train/loss") == pytest.approx(metrics_of(one, "train/loss"), rel=1e-12)


def test_more_bad_samples_than_the_budget_fail_the_run_on_every_rank(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe(POINTS, datasets=TORN, loader={"workers": 0, "bad_samples": 2}), CODE)
    with world_of(run, 2) as world:
        assert all(world.wait())
        messages = [failure_of(world.attempt, rank)["message"] for rank in range(2)]
    assert all("3 samples could not be had, and loader.bad_samples is 2" in message for message in messages)
    assert any("of dataset 'torn': ValueError: this one is torn" in message for message in messages)


def test_large_permutations_are_stored_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_files, "SMALL", 100)
    run, pool = RunDir(tmp_path / "run"), Pool("large", 7, 50, 1000, 3)
    permute = StoredPermutations(run, "d" * 64)
    stored = permute(pool, 4)
    assert isinstance(stored, np.memmap) and (stored == computed(pool, 4)).all()
    path = run.permutation("d" * 64, "large", 4)
    written_at = path.stat().st_mtime_ns
    assert isinstance(permute(pool, 4), np.memmap) and path.stat().st_mtime_ns == written_at
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(path.read_bytes()[:500])
    assert (permute(pool, 4) == computed(pool, 4)).all()
    for number in (5, 6):
        permute(pool, number)
    assert not path.exists() and run.permutation("d" * 64, "large", 5).exists()
    assert not isinstance(permute(Pool("small", 7, 0, 99, 1), 0), np.memmap)


def test_items_that_draw_nothing_are_not_fetched_twice_and_the_first_that_draws_is(tmp_path: Path) -> None:
    """Seeding is left out until something draws: what was fetched before it hangs on no seed."""
    fetched: list[int] = []

    class Sometimes:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> float:
            fetched.append(index)
            return torch.rand(()).item() if index >= 4 else 0.0

    part = MapPart("sometimes", Sometimes(), 20, UseOfRandomness())
    seeds = list(range(100, 120))
    assert part.fetch([0, 1, 2], 0, seeds[:3]) == [0.0, 0.0, 0.0] and fetched == [0, 1, 2]
    first = part.fetch([3, 4, 5], 0, seeds[3:6])
    assert fetched == [0, 1, 2, 3, 4, 5, 3, 4, 5]
    always = MapPart("always", Sometimes(), 20, UseOfRandomness())
    torch.manual_seed(1)
    assert always.fetch([5, 4, 3], 0, [105, 104, 103]) == first[::-1]
