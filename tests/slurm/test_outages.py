"""A real controller that is frozen: while a run is submitted, while it is waited for, and when its time is up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.faults import steps_made, verdicts, wait_until_done
from tests.slurm.slurm_lab import SlurmLab, outside_any_job
from tests.slurm.test_runs import submit
from tests.support.command_line import RECIPES
from tests.support.tracked import losses
from tests.support.waiting import wait_for as eventually

LONGER_THAN_SLURMS_TIME_OUT_S = 18
"""MessageTimeout is 10 s, and the wait asks every four."""
BEFORE_THE_RUN_STOPS_S = 15
"""Before the end of its job; it stops when 11 to 14 s are left."""


@pytest.fixture
def frozen_lab(second_lab: SlurmLab) -> Iterator[SlurmLab]:
    """A lab of the test's own, up; its controller goes on whatever happens, or it could not be taken down."""
    brought_up = second_lab.call("up")
    assert brought_up.returncode == 0, brought_up.stderr
    yield second_lab
    with contextlib.suppress(ProcessLookupError):
        os.kill(controller_of(second_lab), signal.SIGCONT)


def controller_of(lab: SlurmLab) -> int:
    """The pid of slurmctld."""
    return next(int(daemon["pid"]) for daemon in lab.status()["daemons"] if daemon["name"] == "slurmctld")


def test_a_run_that_is_submitted_to_a_frozen_controller_and_waited_for_through_another_freeze_is_one_job_and_done(
    frozen_lab: SlurmLab, tmp_path: Path
) -> None:
    controller = controller_of(frozen_lab)
    words = ("--cluster", str(frozen_lab.profile(tmp_path)), "--set", "resources.cpus_per_gpu=1")
    argv = (sys.executable, "-m", "orchestrator.cli", "submit", str(RECIPES / "slow.yaml"), *words)
    talk = tmp_path / "talk"
    os.kill(controller, signal.SIGSTOP)
    with talk.open("w") as stderr, (tmp_path / "facts").open("w") as stdout:
        command = (*argv, "--wait", "--json", "--set", "duration.steps=700")
        env = outside_any_job(os.environ)
        submit = subprocess.Popen(command, cwd=tmp_path, stdout=stdout, stderr=stderr, env=env)
    wait_for(submit, lambda: "Slurm does not answer" in talk.read_text())
    os.kill(controller, signal.SIGCONT)
    wait_for(submit, lambda: any(losses(path) for path in (tmp_path / "runs").iterdir()))
    os.kill(controller, signal.SIGSTOP)
    time.sleep(LONGER_THAN_SLURMS_TIME_OUT_S)
    os.kill(controller, signal.SIGCONT)
    assert submit.wait(timeout=180) == 0, talk.read_text()
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["outcome"] == "done"
    jobs = frozen_lab.run(["squeue", "--noheader", "--states=all", "--format=%A"]).stdout.split()
    assert jobs == [facts["job_id"]]
    said = talk.read_text()
    assert "the submission had arrived" in said and ": unknown" in said and ": lost" not in said


def test_a_run_whose_time_is_up_while_the_controller_is_frozen_has_one_successor_when_it_is_back(
    frozen_lab: SlurmLab, tmp_path: Path
) -> None:
    """Slurm ends the job as soon as it is back: there are the seconds of KillWait to put the run into the queue."""
    controller = controller_of(frozen_lab)
    words = ("--cluster", frozen_lab.profile(tmp_path), "--set", "resources.cpus_per_gpu=1")
    short = ("--set", "resources.walltime=0:01:00", "--set", "datasets.0.args.pause_s=0.01")
    run = submit(tmp_path, RECIPES / "slow.yaml", *words, *short, "--set", "checkpoint.every.steps=20", "--json")
    eventually(lambda: losses(run.path))
    time.sleep(max(0.0, run.launch["ends_at"] - BEFORE_THE_RUN_STOPS_S - time.time()))
    os.kill(controller, signal.SIGSTOP)
    time.sleep(LONGER_THAN_SLURMS_TIME_OUT_S)
    assert (run.path / "attempts" / "000" / "stop.json").exists() and len(verdicts(run)) == 0
    os.kill(controller, signal.SIGCONT)
    told = wait_until_done(frozen_lab, run, timeout_s=300)
    assert {(one["outcome"], one["cause"]) for one in told[:-1]} == {("stopped", "time_limit")}, told[0]
    assert all(one["checkpoint_step"] == one["step"] for one in told[:-1])
    jobs = frozen_lab.run(["squeue", "--noheader", "--states=all", "--format=%A"]).stdout.split()
    assert sorted(jobs, key=int) == [run.job_id, *(one["successor"] for one in told[:-1])]
    assert steps_made(run) == list(range(1, 301)), "every step once"


def wait_for(process: subprocess.Popen[bytes], is_so: Callable[[], bool], timeout_s: float = 180) -> None:
    """Wait until something is so, while the process is at work."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
