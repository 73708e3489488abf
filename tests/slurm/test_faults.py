"""What a run survives on a real cluster: each fault, and then the science of a run that nothing befell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.node.failures import SIGNAL_SEEN
from tests.slurm.faults import (
    ENDED,
    SLURMD_TIMEOUT_S,
    assert_same_science,
    last_job,
    report,
    started,
    steps_made,
    verdicts,
    wait_until_done,
)
from tests.slurm.slurm_lab import SlurmLab
from tests.support.tracked import losses, records
from tests.support.waiting import wait_for


@pytest.mark.parametrize("victim", ["a rank", "torchrun", "a supervisor"])
def test_what_is_killed_on_a_node_is_started_again_in_the_same_job(
    lab: SlurmLab, undisturbed: Path, tmp_path: Path, victim: str
) -> None:
    run = started(lab, tmp_path)
    node = json.loads((run.path / "attempts" / "000" / "node-node2.json").read_text())
    rank = next(record["pid"] for record in records(run.path, "000.node2.rank-1.log") if record["kind"] == "start")
    killed_at = time.time()
    os.kill({"a rank": rank, "torchrun": node["torchrun_pid"], "a supervisor": node["pid"]}[victim], signal.SIGKILL)
    told = wait_until_done(lab, run)
    assert [one["cause"] for one in told] == ["killed", "done"], told[0]
    assert told[0]["node"] == "node2" and last_job(run) == run.job_id
    assert_same_science(run, undisturbed)
    report(f"{victim} killed", run, killed_at)


@pytest.mark.parametrize("comes_back", [False, True], ids=["for good", "for a while"])
def test_a_lost_node_shrinks_the_job_which_goes_on_without_the_queue(
    lab: SlurmLab, undisturbed: Path, tmp_path: Path, cable: Callable[..., None], comes_back: bool
) -> None:
    """Three nodes share 16 samples unevenly, then two share them; what the third one has to say then is late."""
    run = started(lab, tmp_path, "--set", "batch.on_indivisible=uneven", nodes=3)
    pulled_at = time.time()
    cable(2)
    if comes_back:
        wait_for(lambda: (run.path / "attempts" / "001" / "launch.json").exists(), timeout_s=60)
        cable(2, "up")
    told = wait_until_done(lab, run)
    assert [one["cause"] for one in told] == ["node_lost", "done"], told[0]
    assert told[0]["left_out"] == ["node2"] and last_job(run) == run.job_id
    assert_same_science(run, undisturbed)
    report("a node lost", run, pulled_at, allowed_s=SLURMD_TIMEOUT_S)


def test_a_cable_that_is_back_within_seconds_ends_nothing(
    lab: SlurmLab, undisturbed: Path, tmp_path: Path, cable: Callable[..., None]
) -> None:
    run = started(lab, tmp_path)
    cable(2)
    time.sleep(5)
    cable(2, "up")
    assert [one["cause"] for one in wait_until_done(lab, run)] == ["done"]
    assert_same_science(run, undisturbed)


def test_when_the_first_node_dies_another_supervisor_puts_the_run_back_in_the_queue(
    second_lab: SlurmLab, undisturbed: Path, tmp_path: Path
) -> None:
    """Without power: no cable, and no process. The driver was there."""
    brought_up = second_lab.call("up")
    assert brought_up.returncode == 0, brought_up.stderr
    second_lab.require_namespaces()
    run = started(second_lab, tmp_path, "--cluster", second_lab.profile(tmp_path))
    node, died_at = next(node for node in second_lab.status()["nodes"] if node["name"] == "node1"), time.time()
    subprocess.run(["ip", "link", "set", node["veth"], "down"], check=True)
    inside = subprocess.run(["ip", "netns", "pids", node["namespace"]], capture_output=True, text=True, check=True)
    for pid in inside.stdout.split():
        with contextlib.suppress(ProcessLookupError):  # some end with their parent
            os.kill(int(pid), signal.SIGKILL)
    told = wait_until_done(second_lab, run)
    assert [one["cause"] for one in told] == ["node_lost", "done"], told[0]
    assert told[0]["reason"] == "node1 is lost, and the driver with it"
    assert last_job(run) == told[0]["successor"] != run.job_id
    assert second_lab.wait_for_state(run.job_id, ENDED) in ("CANCELLED", "NODE_FAIL")
    assert_same_science(run, undisturbed)
    report("the first node lost", run, died_at, allowed_s=SLURMD_TIMEOUT_S)


def test_a_preempted_job_saves_within_five_seconds_and_goes_on_as_soon_as_there_is_room(
    lab: SlurmLab, undisturbed: Path, tmp_path: Path
) -> None:
    run = started(lab, tmp_path, "--set", "resources.partition=preempt")
    urgent = lab.submit("-N4", "--exclusive", "--wrap", "sleep 1", cwd=tmp_path)
    told = wait_until_done(lab, run)
    assert lab.wait_for_state(urgent, ENDED) == "COMPLETED"
    assert [one["cause"] for one in told] == ["preempted", "done"], told[0]
    assert told[0]["outcome"] == "stopped" and told[0]["checkpoint_step"] == told[0]["step"]
    assert last_job(run) == told[0]["successor"] != run.job_id
    assert sorted(losses(run.path)) == list(range(1, 301))
    assert_same_science(run, undisturbed)


def test_a_run_that_is_longer_than_its_time_takes_as_many_jobs_as_it_needs(
    lab: SlurmLab, undisturbed: Path, tmp_path: Path
) -> None:
    """The same steps at a fifth of a second each, with a minute for each job, too little for a warning by Slurm."""
    slower = ("--set", "datasets.0.args.pause_s=0.025", "--set", "resources.walltime=0:01:00")
    run = started(lab, tmp_path, *slower, step=1)
    told = wait_until_done(lab, run, timeout_s=600)
    assert len(told) >= 2 and {one["cause"] for one in told[:-1]} == {"time_limit"}, told[0]
    assert all(one["checkpoint_step"] == one["step"] for one in told[:-1])
    stops = [json.loads(file.read_text()) for file in sorted((run.path / "attempts").glob("*/stop.json"))]
    assert any(one.get("deadline") for one in stops), stops
    assert steps_made(run) == list(range(1, 301)), "every step once"
    assert_same_science(run, undisturbed)


def test_slurms_warning_reaches_every_rank_and_starts_no_clock_at_torchrun(lab: SlurmLab, tmp_path: Path) -> None:
    """So early in a job it is a person's, and the end."""
    run = started(lab, tmp_path)
    lab.run(["scancel", "--signal=USR2", run.job_id])
    assert lab.wait_for_state(run.job_id, ENDED, timeout_s=60) == "COMPLETED"
    (verdict,) = verdicts(run)
    assert (verdict["outcome"], verdict["cause"], verdict["final"]) == ("stopped", "asked", True)
    assert verdict["reason"] == f"saved at step {verdict['step']} after SIGUSR2"
    logs = [file.read_text() for file in (run.path / "attempts" / "000" / "logs").glob("node-*.log")]
    assert len(logs) == 2 and not any(SIGNAL_SEEN in log for log in logs)


def test_a_rank_that_hangs_is_shown_and_started_again(lab: SlurmLab, undisturbed: Path, tmp_path: Path) -> None:
    run = started(lab, tmp_path, "--set", "hang_timeout=0:00:05")
    rank = next(record["pid"] for record in records(run.path, "000.node2.rank-1.log") if record["kind"] == "start")
    hung_at = time.time()
    os.kill(rank, signal.SIGSTOP)
    told = wait_until_done(lab, run)
    assert [one["cause"] for one in told] == ["hung", "done"], told[0]
    assert (told[0]["rank"], told[0]["node"]) == (1, "node2") and last_job(run) == run.job_id
    assert "Thread" in (run.path / "attempts" / "000" / "logs" / "stack-1.txt").read_text()
    assert_same_science(run, undisturbed)
    report("a rank hung", run, hung_at)


def test_scancel_saves_and_is_the_end(lab: SlurmLab, tmp_path: Path) -> None:
    run = started(lab, tmp_path)
    lab.run(["scancel", run.job_id])
    assert lab.wait_for_state(run.job_id, ENDED, timeout_s=60) == "CANCELLED"
    (verdict,) = verdicts(run)
    assert (verdict["outcome"], verdict["cause"], verdict["final"]) == ("stopped", "cancelled", True)
    assert verdict["checkpoint_step"] == verdict["step"] >= 30
    assert lab.run(["squeue", "--me", "--noheader"]).stdout == ""


def test_a_second_job_on_a_run_at_work_ends_itself(lab: SlurmLab, undisturbed: Path, tmp_path: Path) -> None:
    run = started(lab, tmp_path, "--set", "datasets.0.args.pause_s=0.01")
    second = lab.submit(str(run.path / "job.sh"), cwd=tmp_path)
    assert lab.wait_for_state(second, ENDED, timeout_s=60) == "FAILED"
    assert f"job {run.job_id} is at work on this run" in (run.path / "logs" / f"job-{second}.log").read_text()
    assert [one["cause"] for one in wait_until_done(lab, run)] == ["done"]
    assert_same_science(run, undisturbed)
