"""What Slurm says of a job, in its own words (22.05), and what that means for a run that was asked to stop."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster import Cluster
from orchestrator.job.job import read_job
from orchestrator.job.slurm_job import JobNow, ask_unreached, job_end, parse_job
from tests.job.runs import make_run
from tests.support.fake_slurm import FakeSlurm

RUNNING = """JobId=10 JobName=nk.sh UserId=root(0) Priority=1 JobState=RUNNING Reason=None Dependency=(null) Requeue=0
 RunTime=00:01:10 TimeLimit=12:00:00 StartTime=2026-11-26T14:34:49 EndTime=2026-11-27T02:34:49
 PreemptEligibleTime=2026-11-26T14:34:49 PreemptTime=None ReqNodeList=(null) ExcNodeList=(null) NodeList=node[1,3]
 NumNodes=2 Comment=a=b"""
ENDING = JobNow("COMPLETING", ("node1",), ends_at=0.0)


def test_a_running_job_is_read_with_the_nodes_that_it_has_left() -> None:
    now = parse_job(RUNNING, lambda nodelist: {"node[1,3]": ("node1", "node3")}[nodelist])
    ends_at = time.mktime((2026, 11, 27, 2, 34, 49, 0, 0, -1))
    assert now == JobNow("RUNNING", ("node1", "node3"), ends_at)


def test_the_nodes_that_slurm_gets_no_answer_from_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as often as it is in a partition; a state may have other marks, and the star is the last one."""
    slurm = FakeSlurm.install(tmp_path)
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    slurm.answers({"sinfo": {"out": "node1 mix\nnode2 mix*\nnode2 mix*\nnode3 down*\nnode4 idle~\n"}})
    assert ask_unreached("node[1-4]") == {"node2", "node3"}
    assert slurm.calls_of("sinfo") == [["--all", "--Node", "--noheader", "--nodes=node[1-4]", "--format=%N %t"]]
    slurm.answers({"sinfo": {"err": "slurm_load_partitions: Unable to contact slurm controller", "code": 1}})
    assert ask_unreached("node[1-4]") == frozenset()


def test_where_slurm_does_not_reach_this_node_either_nothing_is_known_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = FakeSlurm.install(tmp_path / "slurm")
    for name, value in {**slurm.environment, "SLURM_JOB_NODELIST": "node[1-2]", "SLURMD_NODENAME": "node1"}.items():
        monkeypatch.setenv(name, value)
    site = Cluster(name="site", scheduler="slurm", accelerator="cpu")
    job = read_job(make_run(tmp_path / "run", "true", cluster=site), os.environ)
    slurm.answers({"sinfo": {"out": "node1 mix\nnode2 mix*\n"}})
    assert job.unreached() == {"node2"}
    slurm.answers({"sinfo": {"out": "node1 mix*\nnode2 mix*\n"}})
    assert job.unreached() == frozenset()


def test_a_job_that_was_preempted_or_is_out_of_time_says_so() -> None:
    preempted = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-11-26T15:08:53")
    late = RUNNING.replace("RunTime=00:01:10", "RunTime=12:00:03")
    unlimited = RUNNING.replace("TimeLimit=12:00:00", "TimeLimit=UNLIMITED").replace("=2026-11-27T02:34:49", "=Unknown")
    assert parse_job(preempted, lambda _: ()).is_preempted
    assert parse_job(late, lambda _: ()).is_out_of_time
    assert parse_job(unlimited, lambda _: ()) == JobNow("RUNNING", (), None)


@pytest.mark.parametrize(
    ("now", "asked_by", "end"),
    [
        (None, "SIGTERM", None),
        (replace(ENDING, is_preempted=True), "SIGTERM", "preempted"),
        (replace(ENDING, is_out_of_time=True), "SIGTERM", "time_limit"),
        (JobNow("RUNNING", ("node1",), ends_at=time.time() + 100), "SIGUSR2", "time_limit"),
        (JobNow("RUNNING", ("node1",), ends_at=time.time() + 9000), "SIGUSR2", None),
        (JobNow("RUNNING", ("node1",), ends_at=time.time() + 100), "SIGTERM", None),
        (ENDING, "SIGTERM", "cancelled"),
        (ENDING, None, None),
        (None, "SIGUSR2", None),
    ],
)
def test_why_a_job_ends_follows_from_what_slurm_says_and_the_signal(
    now: JobNow | None, asked_by: str | None, end: str | None
) -> None:
    assert job_end(now, asked_by) == end


def test_a_warning_is_known_by_how_early_the_script_asked_for_it() -> None:
    now = JobNow("RUNNING", ("node1",), ends_at=time.time() + 300)
    assert job_end(now, "SIGUSR2") is None
    assert job_end(now, "SIGUSR2", warned_s=240) == "time_limit"


def test_a_warning_that_only_slurm_can_have_sent_needs_no_answer_of_slurms() -> None:
    assert job_end(None, "SIGUSR2", by_slurm=True) == "time_limit"
    assert job_end(None, "SIGTERM", by_slurm=True) is None
