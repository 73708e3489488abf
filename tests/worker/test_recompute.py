"""Activation checkpointing trains as training without it does: to the last bit, on any world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import RecipeError
from orchestrator.run_dir import RunDir
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.recompute import recompute_blocks
from orchestrator.worker.targets import UserCode
from orchestrator.worker.train import train
from tests.support.worlds import ROOT, add_attempt, make_run, metrics_of, run_world

MODELS = ROOT / "tests" / "data" / "models"
IMAGES = {"target": "data:Images", "args": {"size": 26, "side": 2, "num_classes": 3}, "num_samples": 26}
BLOCKS = {
    "name": "blocks",
    "seed": 5,
    "model": {"target": "blocks:Blocks"},
    "loss": {"target": "data:cross_entropy"},
    "datasets": [{"name": "images", **IMAGES}],
    "validation": [{"name": "heldout", **IMAGES}],
    "batch": {"effective": 10, "micro": 3},
    "optimizer": {"name": "adamw", "lr": 0.01, "clip_norm": 0.3},
    "duration": {"steps": 6},
    "precision": "fp64",
    "loader": {"workers": 0},
}  # fmt: skip
KEYS = ("train/loss", "train/grad_norm", "val/loss")


def curves(folder: Path, world_size: int = 0, **changes: Any) -> list[dict[int, float]]:
    """Losses and norms by step; with a world size of 0, of a run in this process."""
    run = make_run(folder, {**BLOCKS, **changes}, MODELS)
    if world_size:
        run_world(run, world_size)
    else:
        train(run, add_attempt(run, 1), {}, StopRequest())
    return curves_of(run)


def curves_of(run: RunDir) -> list[dict[int, float]]:
    found = [metrics_of(run, key) for key in KEYS]
    assert all(found)
    return found


@pytest.mark.parametrize(
    "args", [{}, {"dropout": 0.5}, {"dropout": 0.5, "batch_norm": True}], ids=["plain", "dropout", "batch norm"]
)
def test_losses_and_gradients_are_the_same_to_the_last_bit(tmp_path: Path, args: dict[str, Any]) -> None:
    """Micro-batches of 3, 3, 2 and 2 accumulate. Validation sees whether running statistics were updated twice."""
    model = {"target": "blocks:Blocks", "args": args}
    plain = curves(tmp_path / "plain", model=model)
    assert curves(tmp_path / "recomputed", model=model, activation_checkpointing=True) == plain


def test_two_ranks_that_accumulate_recompute_to_the_same_losses(tmp_path: Path) -> None:
    model = {"target": "blocks:Blocks", "args": {"dropout": 0.5}}
    plain = curves(tmp_path / "plain", 2, model=model)
    assert curves(tmp_path / "recomputed", 2, model=model, activation_checkpointing=True) == plain


def test_parameters_keep_their_names_and_the_children_of_every_list_are_recomputed() -> None:
    model = UserCode(MODELS).load("blocks:Blocks")()
    before = list(model.state_dict())
    blocks = recompute_blocks(model)
    assert list(model.state_dict()) == before
    assert len(blocks) == 3 + 3 * 2
    outer = torch.nn.ModuleList([torch.nn.ModuleList([torch.nn.Linear(1, 1)]), torch.nn.Identity()])
    assert recompute_blocks(torch.nn.Sequential(outer)) == [outer[1], outer[0][0]]  # type: ignore[index]


def num_remembered(model: torch.nn.Module) -> int:
    """How many tensors the backward pass of one forward pass keeps."""
    saved = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(torch.ones(2, 3, 2, 2))
    return len(saved)


def test_what_the_inside_of_a_block_would_remember_is_forgotten() -> None:
    model = UserCode(MODELS).load("blocks:Blocks")()
    before = num_remembered(model)
    recompute_blocks(model)
    assert num_remembered(model) < before / 3


def test_a_model_without_lists_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(RecipeError) as caught:
        recompute_blocks(UserCode(MODELS).load("blocks:without_blocks")())
    (problem,) = caught.value.problems
    assert problem.where == "activation_checkpointing" and "no blocks" in problem.what
    assert "torch.nn.ModuleList" in problem.fix
