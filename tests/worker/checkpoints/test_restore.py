"""A checkpoint that does not belong to this run is refused, and the line says what differs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import RunError
from orchestrator.plan.mixture import order_of
from orchestrator.worker.checkpoints.order_changes import order_changes
from orchestrator.worker.checkpoints.restore import changes_of_order, load_model, load_optimizer, optimizer_state
from orchestrator.worker.checkpoints.store import CheckpointStore


def checkpoint(folder: Path, **tensors: Any) -> Path:
    return CheckpointStore(folder, keep=1).save(1, tensors, {})


def adamw(*sizes: int) -> torch.optim.Optimizer:
    """With one group for each of `sizes`, of so many parameters."""
    return torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.ones(1)) for _ in range(n)]} for n in sizes])


NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)
SCALER = torch.amp.GradScaler("cpu")


@pytest.mark.parametrize(
    ("optimizer", "scaler", "why"),
    [
        (
            torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1),
            NO_SCALER,
            "the optimizer is another one: SGD, and it holds the state of AdamW",
        ),
        (
            adamw(1, 1),
            NO_SCALER,
            "the optimizer has groups of 1 + 1 parameters, and it holds the state of 1",
        ),
        (adamw(2), NO_SCALER, "the optimizer has groups of 2 parameters, and it holds the state of 1"),
        (adamw(1), SCALER, "it was saved without a loss scaler, in another precision"),
    ],
)
def test_another_optimizer_is_refused(tmp_path: Path, optimizer: Any, scaler: Any, why: str) -> None:
    path = checkpoint(tmp_path, optimizer=optimizer_state(adamw(1), NO_SCALER))
    with pytest.raises(RunError, match=rf"step-00000001: {re.escape(why)}\n"):
        load_optimizer(optimizer, scaler, path)


def test_many_differences_of_a_model_are_counted(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, model=torch.nn.Linear(2, 2).state_dict())
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.raises(RunError, match=r"0.weight is new, 0.bias is new, 1.weight is new, 1.bias is new and 2 more"):
        load_model(other, path)


def test_what_is_no_tensor_is_not_loaded(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, model={"weight": tmp_path})
    with pytest.raises(RunError, match=r"model.pt: cannot be loaded as tensors alone: ") as refused:
        load_model(torch.nn.Linear(2, 2), path)
    assert len(str(refused.value).splitlines()) == 2


def test_a_newer_schema_is_not_read_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.worker.checkpoints.layout.SCHEMA", 7)
    checkpoint(tmp_path, model={})
    monkeypatch.undo()
    with pytest.raises(RunError, match="a newer version saved it, in schema 7; this one reads 1"):
        CheckpointStore(tmp_path, keep=1).newest(lambda name, why: None)


BEFORE = {
    "seed": 7,
    "strategy": "weights",
    "datasets": {"x": {"num_samples": 100, "share": 0.5, "content": "0" * 64}, "y": {"num_samples": 3}},
}


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ({**BEFORE, "seed": 8}, ["seed: 7 -> 8"]),
        ({**BEFORE, "temperature": 0.5}, ["temperature: none -> 0.5"]),
        ({**BEFORE, "datasets": {**BEFORE["datasets"], "z": {"num_samples": 1}}}, ["dataset 'z' was added"]),
        ({**BEFORE, "datasets": {"x": BEFORE["datasets"]["x"]}}, ["dataset 'y' was removed"]),
        (
            {**BEFORE, "datasets": {**BEFORE["datasets"], "y": {"num_samples": 5}}},
            ["num_samples of 'y': 3 -> 5"],
        ),
        (
            {**BEFORE, "datasets": {"x": {**BEFORE["datasets"]["x"], "content": "1" * 64}, "y": {"num_samples": 3}}},
            ["content of 'x' has changed"],
        ),
        ({**BEFORE, "datasets": dict(reversed(BEFORE["datasets"].items()))}, ["datasets: x, y -> y, x"]),
        (BEFORE, []),
    ],
)
def test_a_changed_order_is_told_in_words(after: dict[str, Any], told: list[str]) -> None:
    assert list(order_changes(BEFORE, after)) == told


def test_an_order_is_compared_by_its_positions_and_told_by_its_description() -> None:
    order = order_of(7, [("x", 100), ("y", 3)])
    state = json.loads(json.dumps({"order_digest": order.digest(), "order": order.describe()}))
    assert changes_of_order(state, order) == ()
    same = {**state, "contents": {"x": "1", "y": "2"}}
    assert changes_of_order(same, order, {"x": "1", "y": "2"}) == ()
    assert changes_of_order(same, order, {"x": "1", "y": "3"}) == ("the data of 'y' is not what it was",)
    assert changes_of_order(state, order_of(7, [("x", 120), ("y", 3)])) == ("num_samples of 'x': 100 -> 120",)
    assert changes_of_order(state, order_of(7, [("y", 3), ("x", 100)])) == ("datasets: x, y -> y, x",)
    other = {**state, "order_digest": "0" * 64}
    assert changes_of_order(other, order) == ("the same description gives other positions: another version made them",)
