"""A node whose link is slow, on a real Slurm: the preflight names it, and the run goes on without it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.faults import SAVING, SLOW, assert_same_science, last_job, wait_until_done
from tests.slurm.slurm_lab import SlurmLab
from tests.slurm.test_runs import DIGITS, FP32_BEGINNING, shaped, submit
from tests.support.command_line import orchestrate
from tests.support.needed import skip_or_fail
from tests.support.tracked import records

LINK = ("rate", "20mbit", "burst", "32kb", "latency", "400ms")
"""Hundreds of times slower than the lab's links are."""


@pytest.fixture
def throttle(lab: SlurmLab) -> Iterator[Callable[[int], None]]:
    """Makes what a node receives slow; at the end all links are as before."""
    lab.require_namespaces()
    number, slowed = lab.status()["number"], list[str]()

    def make_slow(node: int) -> None:
        link = f"lab{number}-ve{node}"
        words = ["tc", "qdisc", "add", "dev", link, "root", "tbf", *LINK]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if "qdisc kind is unknown" in done.stderr:
            skip_or_fail("this kernel has no tbf, which makes a link slow")
        assert done.returncode == 0, done.stderr
        slowed.append(link)

    yield make_slow
    for link in slowed:
        subprocess.run(["tc", "qdisc", "del", "dev", link, "root"], check=True)


@pytest.mark.parametrize(
    ("node", "num_nodes_then"),
    [pytest.param(2, 2, id="left out of the job"), pytest.param(1, 3, id="the first one, left out of a successor")],
)
def test_a_node_whose_link_is_slow_is_named_and_the_run_goes_on_without_it(
    lab: SlurmLab,
    undisturbed: Path,
    tmp_path: Path,
    throttle: Callable[[int], None],
    node: int,
    num_nodes_then: int,
) -> None:
    """Three nodes share 16 samples unevenly, then two or three others share them."""
    throttle(node)
    asked = ("--set", "preflight=true", "--set", "batch.on_indivisible=uneven")
    run = submit(tmp_path, SLOW, *SAVING, *asked, *shaped(3, 1))
    told = wait_until_done(lab, run)
    assert [one["cause"] for one in told] == ["failed_check", "done"], told[0]
    name, job = f"node{node}", run.job_id if node > 1 else told[0]["successor"]
    assert (told[0]["node"], told[0]["left_out"], last_job(run)) == (name, [name], job)
    assert told[0]["reason"].startswith(f"preflight: {name}: an exchange with a neighbour takes ")
    assert "in the median of 3 nodes (have its network looked at;" in told[0]["reason"]
    launched = json.loads((run.path / "attempts" / "001" / "launch.json").read_text())["nodes"]
    assert name not in [one["name"] for one in launched]
    events = [record["detail"] for record in records(run.path) if record.get("name") == "preflight"]
    assert [(event["num_nodes"], len(event["failed"])) for event in events] == [(3, 1), (num_nodes_then, 0)]
    assert_same_science(run, undisturbed)
    print(f"\npreflights: {', '.join(format(event['seconds'], '.1f') for event in events)} s; {told[0]['reason']}")


def test_a_run_that_waits_for_a_slow_link_is_told_to_be_bound_by_communication(
    lab: SlurmLab, tmp_path: Path, throttle: Callable[[int], None]
) -> None:
    throttle(2)
    run = submit(tmp_path, DIGITS, *FP32_BEGINNING, *shaped(2, 1))
    wait_until_done(lab, run)
    told = json.loads(orchestrate("report", run.path.name, "--json", cwd=tmp_path).stdout)
    assert max(told["bounds"], key=lambda bound: told["bounds"][bound]) == "communication"
    print(f"\nexchange: {told['exchange_share']:.0%} of the steps' time; bound by {told['bounds']}")
