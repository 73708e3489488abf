"""A checkpoint is whole or it is not there; whatever happens while one is written, the one before can be used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from orchestrator.errors import RunError
from orchestrator.worker.checkpoints.layout import damage_of
from orchestrator.worker.checkpoints.restore import load_model, load_optimizer, optimizer_state
from orchestrator.worker.checkpoints.store import CheckpointStore

STATE = {"schema": 1, "order_digest": "abc"}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def save(store: CheckpointStore, step: int, *, size: int = 8) -> Path:
    return store.save(step, {"model": {"weight": torch.full((size,), float(step))}, "optimizer": {}}, STATE)


def newest(store: CheckpointStore) -> tuple[int | None, list[tuple[str, str]]]:
    refused: list[tuple[str, str]] = []
    return store.newest(lambda name, why: refused.append((name, why))), refused


def test_the_newest_committed_checkpoints_are_kept(store: CheckpointStore) -> None:
    for step in (1, 2, 30):
        save(store, step)
    assert newest(store) == (30, [])
    assert sorted(path.name for path in store.path(1).parent.iterdir()) == ["step-00000002", "step-00000030"]
    assert {path.name for path in store.path(30).iterdir()} == {
        *("model.pt", "optimizer.pt", "state.json", "manifest.json", "COMMIT"),
    }
    assert all(path.stat().st_mode & 0o077 == 0 for path in store.path(30).parent.rglob("*"))


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("model.pt", "model.pt has changed"),
        ("state.json", "state.json has changed"),
        ("optimizer.pt", "optimizer.pt has changed"),
        ("manifest.json", "COMMIT and manifest.json disagree"),
        ("COMMIT", "COMMIT and manifest.json disagree"),
    ],
)
def test_a_flipped_byte_falls_back_to_the_one_before(store: CheckpointStore, file: str, why: str) -> None:
    save(store, 1)
    path = save(store, 2) / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert newest(store) == (1, [("step-00000002", why)])


@pytest.mark.parametrize("file", ["model.pt", "optimizer.pt", "state.json", "manifest.json", "COMMIT"])
@pytest.mark.parametrize("num_bytes", [0, 10])
def test_a_short_file_of_any_kind_falls_back_to_the_one_before(
    store: CheckpointStore, file: str, num_bytes: int
) -> None:
    save(store, 1)
    os.truncate(save(store, 2) / file, num_bytes)
    step, refused = newest(store)
    assert step == 1
    assert [name for name, _ in refused] == ["step-00000002"]


def test_every_bit_of_the_marker_counts(store: CheckpointStore) -> None:
    """Among them those that make it no text at all."""
    path = save(store, 1) / "COMMIT"
    whole = path.read_bytes()
    for bit in range(8 * 64):
        path.write_bytes(bytes(byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(whole)))
        assert damage_of(store.path(1)) == "COMMIT and manifest.json disagree"


def test_a_lost_file_and_a_short_file_are_damage(store: CheckpointStore) -> None:
    (save(store, 1) / "model.pt").unlink()
    assert damage_of(store.path(1)) == "model.pt cannot be read: No such file or directory"
    with (save(store, 2) / "model.pt").open("ab") as file:
        file.truncate(10)
    assert damage_of(store.path(2)) == "model.pt has another size"


def test_when_every_checkpoint_is_damaged_a_person_decides(store: CheckpointStore) -> None:
    (save(store, 1) / "model.pt").write_bytes(b"")
    with pytest.raises(RunError, match=r"every checkpoint is damaged \(step-00000001: model.pt has another size\)"):
        newest(store)


def test_a_checkpoint_without_commit_is_ignored_and_swept_by_the_next(store: CheckpointStore) -> None:
    assert newest(store) == (None, [])
    save(store, 1)
    (save(store, 2) / "COMMIT").unlink()
    assert newest(store) == (1, [])
    save(store, 3)
    assert not store.path(2).exists()


def test_a_damaged_checkpoint_is_replaced_when_training_comes_there_again(store: CheckpointStore) -> None:
    save(store, 1)
    (save(store, 2) / "model.pt").write_bytes(b"")
    save(store, 2)
    assert newest(store) == (2, [])


def test_another_model_is_refused_by_the_names_that_differ(store: CheckpointStore) -> None:
    linear = torch.nn.Linear(2, 2)
    with pytest.raises(RunError) as refused:
        load_model(linear, save(store, 1))
    assert "the model is another one: bias is new, weight has shape (2, 2), not (8,)" in str(refused.value)


def test_the_state_of_optimizer_and_scaler_comes_back(store: CheckpointStore) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer, scaler = torch.optim.AdamW(layer.parameters()), torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(layer(torch.ones(1, 2)).sum()).backward()
    optimizer.step()
    path = store.save(1, {"optimizer": optimizer_state(optimizer, scaler)}, STATE)
    other, fresh = torch.optim.AdamW(layer.parameters()), torch.amp.GradScaler("cpu")
    load_optimizer(other, fresh, path)
    assert json.dumps(str(other.state_dict())) == json.dumps(str(optimizer.state_dict()))
    assert fresh.state_dict()["scale"] == 8.0
