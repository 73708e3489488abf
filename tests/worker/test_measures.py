"""What evaluations measure beside means: numbers made of sums over all ranks, of a model that generates; and a look."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from tests.support.worlds import failure_of, make_run, metrics_of, run_world, world_of
from tests.worker.recipes import CODE, POINTS, recipe

MEASURES = """
import torch

def moments(model, inputs, targets):
    scores = model(inputs)
    return torch.stack([scores.sum(), (scores ** 2).sum()]), scores.numel()

def spread(sums, count):
    mean = sums[0] / count
    return {"mean": mean, "variance": sums[1] / count - mean ** 2}

def half(sums, count):
    return sums[0] / count / 2

def first_row(model, digits=3):
    return f"| {model.training} | {model(torch.ones(1, 6))[0, 0].item():.{digits}f} |"

def broken(model):
    raise ValueError("no words")
"""
MOMENTS = {
    "target": "measures:moments",
    "given": "model",
    "finish": "measures:spread",
    "gives": ["mean", "variance"],
}


def run_of(folder: Path, **changes: Any) -> RunDir:
    """A run of the points recipe, with functions that measure and show."""
    code = folder / "code"
    shutil.copytree(CODE, code, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "measures.py").write_text(MEASURES)
    wanted = recipe(POINTS, **{"duration": {"samples": 80}, "precision": "fp32", **changes})
    return make_run(folder / "run", wanted, code)


def test_sums_of_all_ranks_become_several_metrics_on_any_world_also_where_a_rank_has_no_sample(tmp_path: Path) -> None:
    """Three samples are held out: the fourth rank has none, and knows of no vector."""
    metrics = {"accuracy": {"target": "model:accuracy"}, "moments": MOMENTS}
    found = []
    for world_size in (1, 4):
        (tmp_path / str(world_size)).mkdir()
        run = run_of(tmp_path / str(world_size), metrics=metrics, precision="fp64")
        attempt = run_world(run, world_size)
        last = read_json(attempt.done)["metrics"]
        assert list(last) == ["val/loss", "val/accuracy", "val/mean", "val/variance"]
        assert metrics_of(run, "val/variance")[5] == last["val/variance"] > 0
        found.append(last)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_one_metric_may_finish_its_sum_by_itself(tmp_path: Path) -> None:
    metrics = {
        "accuracy": {"target": "model:accuracy"},
        "half": {"target": "model:accuracy", "finish": "measures:half"},
    }
    last = read_json(run_world(run_of(tmp_path, metrics=metrics), 1).done)["metrics"]
    assert last["val/half"] == last["val/accuracy"] / 2


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ({"finish": None, "gives": []}, "metrics.moments: gives 2 numbers as its sum (give one, or write `finish`)"),
        ({"gives": ["mean"]}, "metrics.moments.gives: finish makes mean, variance, and the recipe names mean"),
    ],
)
def test_a_metric_that_gives_something_else_ends_the_run_in_one_line(
    tmp_path: Path, metric: dict[str, Any], told: str
) -> None:
    run = run_of(tmp_path, metrics={"moments": {**MOMENTS, **metric}})
    with world_of(run, 1) as world:
        assert world.wait() == [1]
    assert told in failure_of(world.attempt)["message"]


def test_what_the_model_makes_is_kept_after_each_evaluation(tmp_path: Path) -> None:
    show = {"target": "measures:first_row", "args": {"digits": 2}}
    run = run_of(tmp_path, evaluation={"every": {"steps": 2}, "show": show})
    run_world(run, 2)
    pages = sorted(run.shown.iterdir())
    assert [page.name for page in pages] == ["step-00000002.md", "step-00000004.md", "step-00000005.md"]
    assert all(page.read_text().startswith("| False | ") for page in pages)
    assert all(page.stat().st_mode & 0o077 == 0 for page in pages)


def test_what_goes_wrong_in_showing_is_told_and_ends_no_training(tmp_path: Path) -> None:
    run = run_of(tmp_path, evaluation={"every": {"steps": 2}, "show": {"target": "measures:broken"}})
    attempt = run_world(run, 1)
    assert "evaluation.show: measures.py:19: ValueError: no words" in attempt.rank_log(0).read_text()
    assert read_json(attempt.done)["step"] == 5
