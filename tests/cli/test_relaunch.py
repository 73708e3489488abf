"""Several attempts in one job are one run for everybody who looks at it: memory is made to run out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.documents import dump_yaml
from orchestrator.files import read_json
from orchestrator.recipe.memory_limit import VARIABLE
from orchestrator.recipe.read import read_recipe
from tests.cli.test_lifecycle import searched_by_mlflow
from tests.support.command_line import TINY, orchestrate
from tests.support.tracked import metric_rows


def limited(folder: Path, limit: str, **changes: Any) -> Path:
    """The tiny recipe, whose micro-batches run out of memory above a limit."""
    for file in TINY.parent.glob("*.py"):
        (folder / file.name).write_bytes(file.read_bytes())
    recipe = read_recipe(TINY).recipe.model_dump(mode="json", exclude_none=True)
    path = folder / "limited.yaml"
    path.write_text(dump_yaml({**recipe, "env": {"variables": {VARIABLE: limit}}, **changes}))
    return path


def planned(run_dir: Path) -> list[int]:
    plans = sorted(run_dir.glob("attempts/*/plan.json"))
    return [read_json(plan)["batch"]["micro_batch_size"] for plan in plans]


def test_a_run_that_was_planned_again_is_waited_for_told_and_tracked_as_one(tmp_path: Path) -> None:
    recipe = limited(tmp_path, "8@3", checkpoint={"every": {"steps": 1}})
    done = orchestrate("submit", recipe, "--wait", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["outcome"] == "done" and planned(Path(facts["run_dir"])) == [16, 8]
    (status,) = json.loads(orchestrate("status", "--json", cwd=tmp_path).stdout)
    assert (status["state"], status["attempt"], status["step"]) == ("done", 1, 16)
    assert "step 3: out of memory at a micro-batch of 16 samples" in orchestrate("logs", "tiny", cwd=tmp_path).stdout
    driver = orchestrate("logs", "tiny", "--job", cwd=tmp_path).stdout
    assert "driver: attempt 001: planned again with smaller micro-batches" in driver
    (run,) = searched_by_mlflow(f"sqlite:///{tmp_path}/mlflow.db", "tiny")["runs"]
    assert (run["status"], run["tags"]["orchestrate.outcome"]) == ("FINISHED", "done")
    assert [step for step, _ in metric_rows(tmp_path / "mlflow.db", "train/loss")] == list(range(1, 17))


def test_a_resume_that_names_a_micro_batch_is_taken_at_its_word(tmp_path: Path) -> None:
    recipe = limited(tmp_path, "0", batch={"effective": 2, "micro": 1})
    failed = orchestrate("submit", recipe, "--wait", "--json", cwd=tmp_path)
    run_dir = Path(json.loads(failed.stdout)["run_dir"])
    assert failed.returncode == 4 and read_json(run_dir / "learnt.json")["failed"] == 1
    resumed = orchestrate("resume", "tiny", "--set", "batch.micro=2", "--wait", cwd=tmp_path)
    assert resumed.returncode == 4 and "one sample is the smallest micro-batch" in resumed.stdout
    assert planned(run_dir) == [1, 2, 1]
