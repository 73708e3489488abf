"""A trained model is opened by its run's name: code, weights and assets as the run had them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.documents import dump_yaml
from orchestrator.errors import RunError
from orchestrator.files import write_json
from orchestrator.run_dir import RunDir
from orchestrator.worker.trained import open_trained
from tests.support.worlds import make_run, run_world
from tests.worker.recipes import CODE, POINTS, recipe


def run_of(folder: Path, **changes: Any) -> RunDir:
    """A run of five steps under `folder`/runs, evaluated and saved after each."""
    wanted = recipe(POINTS, **{"duration": {"samples": 80}, "evaluation": {"every": {"steps": 1}}, **changes})
    (folder / "runs").mkdir(exist_ok=True)
    return make_run(folder / "runs" / "points-ffffffff", wanted, CODE)


def test_the_best_checkpoint_is_opened_by_the_beginning_of_its_runs_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    best = {"metric": "loss", "mode": "max"}  # the first one: training makes it smaller
    run = run_of(tmp_path, checkpoint={"every": {"steps": 1}, "keep": 1, "keep_best": best})
    run_world(run, 1)
    first, newest = open_trained("points"), open_trained(run.path, which="newest")
    assert (first.step, newest.step) == (1, 5)
    model = newest.model()
    assert not model.training
    stored = torch.load(run.checkpoints / "step-00000005" / "model.pt", weights_only=True)
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype is torch.float64
    assert first.code.load("model:accuracy")(torch.eye(3), torch.arange(3))[1] == 3


def test_a_damaged_best_one_is_passed_over(tmp_path: Path) -> None:
    best = {"metric": "loss", "mode": "max"}
    run = run_of(tmp_path, checkpoint={"every": {"steps": 1}, "keep": 1, "keep_best": best})
    run_world(run, 1)
    (run.checkpoints / "step-00000001" / "model.pt").write_bytes(b"")
    assert open_trained(run.path).step == 5


def test_assets_lie_where_the_job_found_them_and_its_code_finds_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATE_ASSET_TEXT", "elsewhere")
    assets = {"text": {"url": "file:///text", "sha256": "0" * 64}}
    run = run_of(tmp_path, assets=assets)
    (tmp_path / "text").write_text("")
    write_json(run.environment, {"ORCHESTRATE_ASSET_TEXT": str(tmp_path / "text"), "HF_TOKEN": "hf_canary"})
    run_world(run, 1)
    trained = open_trained(run.path)
    assert trained.asset("text") == tmp_path / "text" == Path(os.environ["ORCHESTRATE_ASSET_TEXT"])
    assert "HF_TOKEN" not in os.environ
    files = [{"path": "text", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()}]
    write_json(run.path / "recipe.lock.json", {"format": 1, "assets": {"text": {"files": files}}})
    assert trained.asset("text")
    (tmp_path / "text").write_text("another")
    with pytest.raises(RunError, match="is not what this run was trained with"):
        trained.asset("text")
    (tmp_path / "text").unlink()
    with pytest.raises(RunError, match="is not there any more\n    stage the recipe again"):
        trained.asset("text")
    with pytest.raises(RunError, match=r"the recipe has no such asset\n    did you mean 'text'\?"):
        trained.asset("txt")


def test_what_cannot_be_opened_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_of(tmp_path)
    with pytest.raises(RunError, match="it has no checkpoint yet\n    wait for the first one"):
        open_trained("points")
    with pytest.raises(RunError, match="no such run in"):
        open_trained("pionts")
    own = {"name": "own", "command": ["train.py"], "batch": {"effective": 2}, "duration": {"steps": 1}}
    run.recipe.write_text(dump_yaml({**own, "optimizer": {"name": "adamw", "lr": 0.1}}))
    with pytest.raises(RunError, match="its recipe has a command and no model"):
        open_trained("points")
