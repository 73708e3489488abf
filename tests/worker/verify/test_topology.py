"""The contract: the same samples and the same loss in every step, for any world and any sharing of the window."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.run_dir import RunDir
from tests.support.worlds import make_run, metrics_of, run_world, sample_ids_of
from tests.worker.recipes import CODE, POINTS, recipe


def relative_difference(run: RunDir, reference: RunDir, key: str, *, steps: int) -> float:
    """The largest relative difference of a metric over the first `steps` steps; both have the same steps."""
    one, other = metrics_of(run, key), metrics_of(reference, key)
    assert one.keys() == other.keys() and one
    return max(abs(one[step] / other[step] - 1) for step in one if step <= steps)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_any_world_trains_as_one_process_does_in_fp64(tmp_path: Path, uninterrupted: RunDir, world_size: int) -> None:
    """16 samples per step in micro-batches of at most 3: ragged; 3 ranks share them unevenly; 2 are left at the end."""
    run = make_run(tmp_path / "run", POINTS, CODE)
    run_world(run, world_size)
    assert sample_ids_of(run) == sample_ids_of(uninterrupted)
    assert len(metrics_of(run, "train/loss")) == 21
    for key in ("train/loss", "train/grad_norm", "val/loss"):
        assert relative_difference(run, uninterrupted, key, steps=21) <= 1e-12
    for key in ("train/lr", "progress/samples", "progress/epoch", "val/accuracy"):
        assert metrics_of(run, key) == metrics_of(uninterrupted, key)


def test_any_world_trains_as_one_process_does_in_fp32(tmp_path: Path) -> None:
    reference = make_run(tmp_path / "1", recipe(POINTS, precision="fp32"), CODE)
    run_world(reference, 1)
    for world_size in (2, 4):
        run = make_run(tmp_path / str(world_size), recipe(POINTS, precision="fp32"), CODE)
        run_world(run, world_size)
        assert sample_ids_of(run) == sample_ids_of(reference)
        assert relative_difference(run, reference, "train/loss", steps=20) <= 5e-6


def test_every_epoch_of_the_order_holds_every_sample_once(uninterrupted: RunDir) -> None:
    ids = [i for _, window in sorted(sample_ids_of(uninterrupted).items()) for i in window]
    assert len(ids) == 322
    assert all(sorted(ids[first : first + 61]) == list(range(61)) for first in range(0, 305, 61))


def test_a_loss_that_averages_within_micro_batches_is_seen(tmp_path: Path) -> None:
    """The tolerance is far below what the classic mistake costs, so these tests can fail."""
    planted = recipe(POINTS, loss={"target": "model:mean_of_means"}, duration={"steps": 4})
    runs = [make_run(tmp_path / str(world_size), planted, CODE) for world_size in (1, 2)]
    for world_size, run in enumerate(runs, start=1):
        run_world(run, world_size)
    assert relative_difference(runs[1], runs[0], "train/loss", steps=4) > 1e-4
