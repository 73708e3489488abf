"""Faults that a run brings with it to a real cluster: its code, its data, its memory and its disk."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.documents import dump_yaml
from orchestrator.run_dir import RunDir
from tests.job.trained import FAULTY, assert_same_science, verdicts
from tests.slurm import faults
from tests.slurm.slurm_lab import SlurmLab
from tests.slurm.test_runs import shaped
from tests.support.command_line import orchestrate
from tests.support.waiting import wait_for
from tests.support.worlds import events_of, metrics_of
from tests.worker.recipes import CODE

ON_TWO_NODES = shaped(2, 1)
TORN = [{"name": "points", "target": "data:OneTorn", "args": {"size": 61}, "num_samples": 61}]
"""61 samples of which one is no number: it comes once an epoch, five or six times in a run."""


def submitted(folder: Path, *words: str | Path, fault: Mapping[str, Any] | None = None, **changes: Any) -> RunDir:
    """A run of the recipe that may be told a fault, waited for."""
    shutil.copytree(CODE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = folder / "faulty.yaml"
    recipe.write_text(
        dump_yaml({**FAULTY, "resources": {}, "env": {"variables": {"FAULT": json.dumps(fault or {})}}, **changes})
    )
    done = orchestrate("submit", recipe, *words, "--wait", "--json", cwd=folder)
    assert "run_dir" in done.stdout, done.stdout + done.stderr
    run = RunDir(Path(json.loads(done.stdout)["run_dir"]))
    assert done.returncode == (0 if verdicts(run)[-1]["outcome"] == "done" else 4), done.stderr
    return run


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """In one process on this machine."""
    return submitted(tmp_path_factory.mktemp("faultless") / "recipe")


def test_an_error_of_the_users_code_is_told_with_its_line_after_two_attempts(lab: SlurmLab, tmp_path: Path) -> None:
    run = submitted(tmp_path / "recipe", *ON_TWO_NODES, fault={"do": "raise", "rank": 1, "call": 9})
    told = verdicts(run)
    assert [(one["cause"], one["final"]) for one in told] == [("user_code", False), ("user_code", True)]
    assert (told[0]["rank"], told[0]["node"]) == (1, "node2") and told[0]["failed_step"] is not None
    assert "faults.py:" in told[1]["reason"] and "ValueError: this step is bad" in told[1]["reason"]


def test_a_crash_loop_ends_after_three_attempts_with_its_reason(lab: SlurmLab, tmp_path: Path) -> None:
    """Rank 0 is on the first node, so that the third attempt is made from the queue."""
    run = submitted(tmp_path / "recipe", *ON_TWO_NODES, fault={"do": "kill", "rank": 0, "call": 1})
    told = verdicts(run)
    assert [one["cause"] for one in told] == ["killed"] * 3 and told[-1]["final"]
    assert [one["successor"] is not None for one in told] == [False, True, False]
    assert told[-1]["reason"].endswith("no new checkpoint in 3 attempts")


def test_a_rank_that_exhausts_its_nodes_memory_is_started_again(
    lab: SlurmLab, faultless: RunDir, memory_group: Path, tmp_path: Path
) -> None:
    """By the kernel's own hand, in a group of processes that may have little."""
    fault = {"do": "exhaust memory", "rank": 1, "call": 9, "attempt": 0}
    words = ("--set", f"env.variables.MEMORY_GROUP={memory_group}")
    run = submitted(tmp_path / "recipe", *ON_TWO_NODES, *words, fault=fault)
    first, last = verdicts(run)
    assert (first["cause"], first["rank"], first["node"]) == ("host_memory", 1, "node2")
    assert last["cause"] == "done"
    assert_same_science(run, faultless)


@pytest.mark.parametrize("action", ["roll_back", "stop"])
def test_a_loss_that_is_no_number_rolls_the_run_back_or_ends_it(lab: SlurmLab, tmp_path: Path, action: str) -> None:
    policy = {"action": action, **({"budget": 9} if action == "roll_back" else {})}
    here, there = (
        submitted(tmp_path / where, *words, datasets=TORN, on_non_finite_loss=policy)
        for where, words in (("here", ()), ("there", ON_TWO_NODES))
    )
    (alone,), (on_two_nodes,) = verdicts(here), verdicts(there)
    assert on_two_nodes["cause"] == alone["cause"] == ("done" if action == "roll_back" else "non_finite")
    if action == "stop":
        assert "training loss is nan" in on_two_nodes["reason"]
        return
    rolled_back = [{(e["from_step"], e["to_step"]) for e in events_of(run, "rolled_back")} for run in (here, there)]
    assert rolled_back[0] == rolled_back[1] and len(rolled_back[0]) >= 4
    assert metrics_of(there, "val/loss")[21] == pytest.approx(metrics_of(here, "val/loss")[21], rel=1e-12, abs=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB. A lab that comes up after it sees it."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_is_named_and_the_checkpoint_before_serves(
    small_disk: Path, second_lab: SlurmLab, undisturbed: Path, tmp_path: Path
) -> None:
    """So full that no rank and no supervisor can say so; then somebody makes room."""
    brought_up = second_lab.call("up")
    assert brought_up.returncode == 0, brought_up.stderr
    run = faults.started(second_lab, small_disk, "--cluster", second_lab.profile(tmp_path))
    with (small_disk / "others").open("wb", buffering=0) as others, pytest.raises(OSError, match="No space left"):
        while True:
            others.write(bytes(4096))
    wait_for(lambda: not running_steps(second_lab, run.job_id), timeout_s=240)
    (small_disk / "others").unlink()
    assert second_lab.wait_for_state(run.job_id, faults.ENDED) == "FAILED"
    (verdict,) = faults.verdicts(run)
    assert (verdict["cause"], verdict["final"]) == ("disk_full", True)
    assert "No space left on device" in verdict["reason"] and verdict["checkpoint_step"] >= 20
    resumed = orchestrate("resume", run.path, "--wait", cwd=small_disk)
    assert resumed.returncode == 0, resumed.stderr
    faults.assert_same_science(run, undisturbed)


def running_steps(lab: SlurmLab, job_id: str) -> list[str]:
    """The job's steps that srun started."""
    steps = lab.run(["squeue", "--steps", f"--jobs={job_id}", "--noheader", "--format=%i"]).stdout.split()
    return [step for step in steps if step.rpartition(".")[2].isdigit()]
