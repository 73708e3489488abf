"""A command beside datasets by the verbs: planned as a model is, and a failure where it opens no session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.job.judge import NO_SESSION
from tests.support.command_line import orchestrate

RECIPE = """
name: own
command: [train.py, "--lr=${plan.lr}"]
datasets:
  - {name: large, target: "data:numbers", args: {size: 60}, num_samples: 60, weight: 3}
  - {name: small, target: "data:numbers", args: {size: 10}, num_samples: 10, weight: 1}
mixture: {strategy: weights}
batch: {effective: 10, micro: 3}
optimizer: {name: sgd, lr: 0.1}
duration: {epochs: 2}
precision: bf16
loader: {workers: 0, bad_samples: 2}
resources: {gpus_per_node: 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "data.py").write_text("def numbers(size):\n    return [(i, i) for i in range(size)]\n")
    (tmp_path / "train.py").write_text("print('trained')\n")
    return tmp_path


def test_a_session_is_planned_with_its_data_epochs_and_ragged_micro_batches(folder: Path) -> None:
    done = orchestrate("plan", "recipe.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line[:10].strip(): " ".join(line[10:].split()) for line in done.stdout.splitlines()}
    assert rows["batch"] == "2 ranks x (3, 2) = 10 samples exactly 2 accumulation steps; micro-batch at most 3"
    shares = "large 60 samples, 75.0% of all, 2 passes · small 10 samples, 25.0% of all, 4 passes"
    assert rows["data"] == f"{shares} weights, repeat; an epoch is 80 samples"
    assert rows["horizon"] == "16 steps = 160 samples checkpoint every 5 minutes"
    shown = orchestrate("plan", "recipe.yaml", "--show", "torchrun", cwd=folder).stdout
    assert shown.endswith(" train.py --lr=0.1\n")
    explained = orchestrate("plan", "recipe.yaml", "--explain", cwd=folder).stdout
    assert "schedule.samples_per_epoch = 80" in explained and "micro-batches of one size" not in explained


def test_a_target_of_its_datasets_and_its_script_are_looked_for(folder: Path) -> None:
    words = ("--set", "datasets.0.target=data:nmbers", "--set", "command=[trian.py]")
    done = orchestrate("plan", "recipe.yaml", *words, cwd=folder)
    assert done.returncode == 2
    assert "data.py defines no 'nmbers'" in done.stderr and "did you mean 'train.py'?" in done.stderr


def test_a_command_that_opens_no_session_has_failed_and_is_told_what_to_write(folder: Path) -> None:
    done = orchestrate("submit", "recipe.yaml", "--wait", "--json", cwd=folder)
    assert done.returncode == 4, done.stderr
    facts = json.loads(done.stdout)
    assert facts["outcome"] == "failed" and facts["reason"].endswith(f"left no done.json: {NO_SESSION}")
