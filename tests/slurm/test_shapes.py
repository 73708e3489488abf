"""`plan --shapes` and `submit --soonest` on the lab while half of it is busy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.slurm_lab import ROOT, SlurmLab
from tests.support.command_line import TINY, orchestrate

BUSY_MINUTES = 10
PROFILE = ("--cluster", ROOT / "cluster" / "dev.yaml", "--set", "resources.cpus_per_gpu=1")
OWN = (*PROFILE, "--set", "resources.num_nodes=4", "--set", "resources.walltime=0:05:00")
"""Four nodes: they would have to wait for the two busy ones."""


@pytest.fixture
def blocker(lab: SlurmLab, tmp_path: Path) -> Iterator[str]:
    """A job that has two whole nodes, and would keep them for ten minutes."""
    words = ("--nodes=2", "--exclusive", f"--time={BUSY_MINUTES}", "--partition=debug", "--wrap", "sleep 600")
    job_id = lab.submit(*words, cwd=tmp_path)
    lab.wait_for_state(job_id, {"RUNNING"})
    yield job_id
    lab.run(["scancel", job_id])
    lab.wait_for_state(job_id, {"CANCELLED"})


def own_of(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    return next(shape for shape in shapes if shape["is_own"])


def time_of(shape: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(shape["start"])


def test_while_half_of_the_lab_is_busy_shapes_that_fit_start_now_and_larger_ones_when_it_is_free(
    blocker: str, tmp_path: Path
) -> None:
    done = orchestrate("plan", TINY, *OWN, "--shapes", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    asked_at = datetime.fromisoformat(table["asked_at"])
    estimated = [shape for shape in table["shapes"] if shape["start"]]
    now = [shape for shape in estimated if time_of(shape) == asked_at]
    later = [shape for shape in estimated if time_of(shape) > asked_at]
    print(f"\n{len(now)} shapes start now, {len(later)} later, {len(table['shapes']) - len(estimated)} never")
    assert len(estimated) >= 6 and estimated == table["shapes"][: len(estimated)]
    assert all(shape["is_exact"] and shape["effective_batch_size"] == 16 for shape in estimated)
    assert {shape["num_nodes"] for shape in now} == {1, 2} and {shape["num_nodes"] for shape in later} == {4}
    most = timedelta(minutes=BUSY_MINUTES)
    assert all(timedelta(minutes=1) < time_of(shape) - asked_at <= most for shape in later)
    assert time_of(own_of(table["shapes"])) > asked_at


def test_soonest_runs_to_its_end_while_the_recipes_own_shape_would_still_wait(
    lab: SlurmLab, blocker: str, tmp_path: Path
) -> None:
    table = json.loads(orchestrate("plan", TINY, *OWN, "--shapes", "--json", cwd=tmp_path).stdout)
    own_start = time_of(own_of(table["shapes"]))

    done = orchestrate("submit", TINY, *OWN, "--soonest", "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    state = lab.wait_for_state(facts["job_id"], {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}, timeout_s=180)
    assert (state, lab.state(blocker)) == ("COMPLETED", "RUNNING")
    shown = lab.run(["scontrol", "show", "job", facts["job_id"]]).stdout
    started = datetime.fromisoformat(shown.split("StartTime=")[1].split()[0]).astimezone()
    gained_s = (own_start - started).total_seconds()
    print(f"\nstarted {gained_s:.0f} s before the recipe's own shape could have")
    assert gained_s > 60
    run_dir = Path(facts["run_dir"])
    topology = json.loads((run_dir / "attempts" / "000" / "plan.json").read_text())["topology"]
    assert (topology["num_nodes"], topology["world_size"]) == (1, 4)
    assert json.loads((run_dir / "plan.json").read_text())["batch"]["effective_batch_size"] == 16
