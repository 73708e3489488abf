"""Memory that runs out is a smaller micro-batch in the same job, and the science stays: by the real driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import read_json
from orchestrator.recipe.memory_limit import VARIABLE
from orchestrator.run_dir import RunDir
from orchestrator.submit.runs import status_of
from tests.job.runs import driver_on
from tests.job.trained import make_run
from tests.support.waiting import wait_for
from tests.support.worlds import metrics_of, run_world, sample_ids_of
from tests.worker.recipes import POINTS, recipe

TWO_RANKS = recipe(POINTS, batch={"effective": 16}, resources={"gpus_per_node": 2})


def limited(limit: str, **changes: Any) -> dict[str, Any]:
    """Two ranks with 8 samples each in every step, and memory that pretends to end."""
    return recipe(TWO_RANKS, env={"variables": {VARIABLE: limit}}, **changes)


def verdicts(run: RunDir) -> list[dict[str, Any]]:
    return [read_json(attempt.verdict) for attempt in run.all_attempts()]


def micro_batches(run: RunDir) -> list[int]:
    """The largest micro-batch of each attempt, as it was planned."""
    return [read_json(attempt.plan)["batch"]["micro_batch_size"] for attempt in run.all_attempts()]


def test_memory_that_runs_out_twice_is_planned_around_twice_and_nothing_else_changes(tmp_path: Path) -> None:
    """8 samples are too many from step 5 on, 4 from step 11 on: each time the newest checkpoint is gone on from."""
    unlimited = make_run(tmp_path / "unlimited", TWO_RANKS)
    run_world(unlimited, 2)
    run = make_run(tmp_path / "run", limited("5@5,2@11"))
    with driver_on(run) as driver:
        exit_code, output = driver.end()
    assert exit_code == 0, output
    assert micro_batches(run) == [8, 4, 2]
    told = verdicts(run)
    assert [(one["outcome"], one["final"]) for one in told] == [("failed", False), ("failed", False), ("done", True)]
    assert "step 5: out of memory at a micro-batch of 8 samples" in told[0]["reason"]
    assert told[0]["then"] == "attempt 001: planned again with smaller micro-batches"
    assert told[1]["out_of_memory"]["micro_batch_size"] == 4 and told[1]["out_of_memory"]["step"] == 11
    assert "unlike the submitted plan: micro_batch_size 8 -> 2" in output
    assert read_json(run.learnt) == {"failed": 4, "worked": 2, "device": "cpu"}
    assert sample_ids_of(run) == sample_ids_of(unlimited)
    found, expected = metrics_of(run, "train/loss"), metrics_of(unlimited, "train/loss")
    untold = expected.keys() - found.keys()
    assert all(step + 1 in untold | {5, 11} for step in untold), "only the last steps before an end may have no loss"
    assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-12, abs=0) and 21 in found
    final, wanted = (read_json(one.last_attempt().done)["metrics"] for one in (run, unlimited))
    assert final["val/loss"] == pytest.approx(wanted["val/loss"], rel=1e-12, abs=0)


def test_one_rank_that_runs_out_ends_them_all_within_seconds(tmp_path: Path) -> None:
    """Rank 0 waits for rank 1's gradients then. Between two attempts the run is running: its job is."""
    run = make_run(tmp_path / "run", limited("1:1", batch={"effective": 4}, duration={"steps": 3}, schedule={}))
    with driver_on(run) as driver:
        wait_for(driver.attempt.verdict.exists)
        assert status_of(run, "running").state == "running"
        exit_code, output = driver.end()
    assert exit_code == 0, output
    assert micro_batches(run) == [2, 1]
    first, last = verdicts(run)
    failure = read_json(run.attempt(0).error(1))
    assert first["rank"] == 1 and last["outcome"] == "done"
    assert (failure["type"], failure["micro_batch_size"], failure["step"]) == ("OutOfMemory", 2, 1)
    assert first["ended_at"] - failure["time"] < 10
    assert status_of(run, "ended").state == "done"


def test_one_sample_that_does_not_fit_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", limited("0", batch={"effective": 2}))
    with driver_on(run) as driver:
        assert driver.end()[0] == 4
    verdict = driver.verdict()
    assert verdict["final"] and verdict["then"] is None
    assert verdict["reason"].endswith(
        "step 1: out of memory at a micro-batch of 1 sample: one sample is the smallest micro-batch; "
        "use activation_checkpointing: true, shorter samples or GPUs with more memory"
    )
