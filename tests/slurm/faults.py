"""Runs on the lab that something befalls: how they are started and waited for, and what their science must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.slurm_lab import SlurmLab
from tests.slurm.test_runs import Run, shaped, submit
from tests.support.command_line import RECIPES
from tests.support.tracked import losses, metric_rows, records
from tests.support.waiting import wait_for

SLOW = RECIPES / "slow.yaml"
STEPS_BETWEEN_CHECKPOINTS = 20
SAVING = ("--set", f"checkpoint.every.steps={STEPS_BETWEEN_CHECKPOINTS}", "--json")
SLURMD_TIMEOUT_S = 20.0
"""Of the lab: how long a node may be silent before Slurm takes it for lost."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL"}


def started(lab: SlurmLab, cwd: Path, *words: str | Path, nodes: int = 2, step: int = 30, recipe: Path = SLOW) -> Run:
    """The slow recipe, or one like it, on some nodes, past some steps."""
    run = submit(cwd, recipe, *SAVING, *shaped(nodes, 1), *words)
    wait_for(lambda: max(losses(run.path), default=0) >= step, timeout_s=120)
    return run


def verdicts(run: Run) -> list[dict[str, Any]]:
    files = sorted((run.path / "attempts").glob("*/verdict.json"))
    return [json.loads(file.read_text()) for file in files]


def steps_made(run: Run, attempt: int | None = None) -> list[int]:
    """The steps that rank 0 has told, in one attempt or in all, attempt by attempt."""
    files = f"{'*' if attempt is None else format(attempt, '03d')}.*.rank-0.log"
    return [one["step"] for one in records(run.path, files) if "train/lr" in one.get("values", {})]


def last_job(run: Run) -> str:
    return str(json.loads((run.path / "job.json").read_text())["job_id"])


def wait_until_done(lab: SlurmLab, run: Run, timeout_s: float = 240) -> list[dict[str, Any]]:
    """The verdicts of a run's attempts, the last of which trained to the end."""
    try:
        wait_for(lambda: any(one["final"] for one in verdicts(run)), timeout_s)
    except AssertionError:
        pytest.fail(f"no end after {timeout_s:g} s: {verdicts(run)}\n{lab.story()}", pytrace=False)
    assert lab.wait_for_state(last_job(run), ENDED, timeout_s=60) == "COMPLETED"
    assert verdicts(run)[-1]["cause"] == "done", verdicts(run)[-1]
    return verdicts(run)


def assert_same_science(run: Run, undisturbed: Path) -> None:
    """The losses and the last one to the rounding of fp64, and in one MLflow run every step once."""
    found, expected = losses(run.path), losses(undisturbed)
    assert max(found) == max(expected) == 300
    assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-12, abs=0)
    database = run.path.parent.parent / "mlflow.db"
    run_id = json.loads((run.path / "forward" / "mlflow.json").read_text())["run_id"]
    assert [step for step, _ in metric_rows(database, "train/lr", run_id=run_id)] == list(range(1, 301))


def first_step_after(run: Run, attempt: int) -> float:
    """Seconds since the epoch at which an attempt had made its first step."""
    told = records(run.path, f"{attempt:03d}.*.rank-0.log")
    return min(record["time_ms"] for record in told if record["kind"] == "metrics") / 1000


def report(what: str, run: Run, since: float, *, allowed_s: float = 0.0) -> float:
    """How long it took until the next step, in multiples of the first driver's way from its start to its first step.

    Of that time `allowed_s` do not count: what Slurm may take to know of it. No more steps are made again than there
    are between two checkpoints.
    """
    begun = json.loads((run.path / "attempts" / "000" / "driver.json").read_text())["started_at"]
    cold_s, again_at = first_step_after(run, 0) - begun, first_step_after(run, 1)
    steps = [steps_made(run, attempt) for attempt in (0, 1)]
    made_again = max(steps[0]) - min(steps[1]) + 1
    cold_starts = (again_at - since - allowed_s) / cold_s
    allowed = f"{allowed_s:g} s and " if allowed_s else ""
    ratio = f"{allowed}{cold_starts:.2f} cold starts ({cold_s:.1f} s)"
    print(f"\n{what}: next step after {again_at - since:.1f} s: {ratio}; {made_again} steps made again")
    assert 0 <= made_again <= STEPS_BETWEEN_CHECKPOINTS
    return cold_starts
