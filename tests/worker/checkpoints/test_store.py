"""What is kept, what goes, and what happens when the disk is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from orchestrator.errors import NoRoom
from orchestrator.recipe.schema import KeepBest
from orchestrator.worker.checkpoints.store import CheckpointStore

NUM_BYTES = 4_000
"""Of the tensors of one checkpoint; with what stands around them it is a little more."""


def save(store: CheckpointStore, step: int, *, accuracy: float | None = None, size: int = NUM_BYTES // 4) -> None:
    """A checkpoint at `step`, of ten samples each; evaluated there if `accuracy` is given, else at step 1."""
    metrics = {"val/accuracy": 0.9 if accuracy is None else accuracy}
    evaluated = 10 if accuracy is None else 10 * step
    state = {"consumed_samples": 10 * step, "evaluated_samples": evaluated, "metrics": metrics}
    store.save(step, {"model": {"weight": torch.full((size,), float(step))}, "optimizer": {}}, state)


def steps_in(store: CheckpointStore) -> list[int]:
    """Every folder there, committed or not."""
    return sorted(int(path.name.strip(".").split("-")[1].split(".")[0]) for path in store.folder.iterdir())


@pytest.mark.parametrize(("mode", "kept"), [("max", [2, 4, 5]), ("min", [1, 3, 5])])
def test_the_best_by_a_metric_are_kept_beside_the_newest(tmp_path: Path, mode: str, kept: list[int]) -> None:
    store = CheckpointStore(tmp_path, keep=1, keep_best=KeepBest(metric="accuracy", mode=mode, num=2))
    for step, accuracy in enumerate((0.2, 0.8, 0.1, 0.7, 0.5), start=1):
        save(store, step, accuracy=accuracy)
    assert steps_in(store) == kept


def test_a_metric_counts_only_where_it_was_measured(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1, keep_best=KeepBest(metric="accuracy", mode="max"))
    save(store, 2, accuracy=0.5)
    save(store, 3)
    save(store, 4, accuracy=float("nan"))
    assert steps_in(store) == [2, 4]
    evaluated = {"consumed_samples": 50, "evaluated_samples": 50}
    assert store.would_be_best({**evaluated, "metrics": {"val/accuracy": 0.6}})
    assert not store.would_be_best({**evaluated, "metrics": {"val/accuracy": 0.5}})
    assert not store.would_be_best({**evaluated, "evaluated_samples": 40, "metrics": {"val/accuracy": 0.6}})


def disk_of(folder: Path, num_bytes: int) -> CheckpointStore:
    """A store that keeps two, on a disk of so many bytes."""

    def free_bytes(folder: Path) -> int:
        return num_bytes - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    return CheckpointStore(folder, keep=2, free_bytes=free_bytes)


def test_without_room_for_another_the_oldest_goes_before_the_save_and_the_newest_stays(tmp_path: Path) -> None:
    store = disk_of(tmp_path, 4 * NUM_BYTES)
    (tmp_path / ".step-00000009.building").mkdir()
    (tmp_path / ".step-00000009.building" / "model.pt").write_bytes(bytes(3 * NUM_BYTES))
    for step in (1, 2, 3):
        save(store, step)
    assert steps_in(store) == [2, 3]
    tight = disk_of(tmp_path, 3 * NUM_BYTES)
    save(tight, 4)
    assert steps_in(tight) == [3, 4]


def test_without_any_room_nothing_is_touched_and_the_sizes_are_told(tmp_path: Path) -> None:
    store = disk_of(tmp_path, 5 * NUM_BYTES)
    for step in (1, 2):
        save(store, step)
    with pytest.raises(NoRoom, match=r"a checkpoint needs \d.* [KM]iB, and \d.* [KM]iB is free") as refused:
        save(store, 3, size=10**6)
    assert str(tmp_path) in str(refused.value) and "lower checkpoint.keep" in str(refused.value)
    assert store.newest(lambda name, why: None) == 2


def test_a_damaged_newest_checkpoint_never_costs_the_one_before_it(tmp_path: Path) -> None:
    store = disk_of(tmp_path, 5 * NUM_BYTES)
    for step in (1, 2):
        save(store, step)
    (store.path(2) / "model.pt").write_bytes(b"")
    with pytest.raises(NoRoom):
        save(store, 3, size=10**6)
    assert store.newest(lambda name, why: None) == 1


@pytest.fixture
def files_of_at_most_100_kb() -> Iterator[None]:
    """The kernel ends a write in its middle with EFBIG, as a full disk does with ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_during_a_save_leaves_the_older_ones_whole(
    tmp_path: Path, files_of_at_most_100_kb: None
) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2):
        save(store, step)
    with pytest.raises(NoRoom, match="step-00000003 did not fit: File too large"):
        save(store, 3, size=10**6)
    assert steps_in(store) == [1, 2]
    assert store.newest(lambda name, why: None) == 2
    save(store, 3)
    assert steps_in(store) == [2, 3]
