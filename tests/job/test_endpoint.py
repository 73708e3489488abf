"""Where an attempt's world meets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster import LOCAL, Allocation, Cluster
from orchestrator.errors import LaunchError
from orchestrator.job.endpoint import (
    NUM_CANDIDATES,
    arrange_meeting,
    candidate_ports,
    claim_port,
    head_address,
    reachable_address,
)

EPHEMERAL = range(32768, 61000)
SITE = Cluster(name="site", scheduler="slurm")
TWO_NODES = Allocation(2, 1, None, ("node1", "node2"))

CLAIM_IN_ANOTHER_PROCESS = """
import sys
from orchestrator.job.endpoint import claim_port
port, claim = claim_port(map(int, sys.argv[1:]))
print(port, flush=True)
sys.stdin.read()
"""


@given(first=st.integers(1, 65535), length=st.integers(0, 60000), seed=st.text())
def test_candidates_lie_outside_the_ephemeral_range_if_anything_does(first: int, length: int, seed: str) -> None:
    ephemeral = range(first, min(first + length, 65536))
    ports = candidate_ports(ephemeral, seed=seed)
    assert len(set(ports)) == NUM_CANDIDATES and all(16384 <= port <= 65535 for port in ports)
    outside = sum(port not in ephemeral for port in range(16384, 65536) if port != 29500)
    assert outside < NUM_CANDIDATES or not set(ports) & {*ephemeral, 29500}


def test_two_jobs_draw_different_candidates_and_one_job_the_same_again() -> None:
    assert candidate_ports(EPHEMERAL, seed="41.0") == candidate_ports(EPHEMERAL, seed="41.0")
    assert candidate_ports(EPHEMERAL, seed="41.0")[0] != candidate_ports(EPHEMERAL, seed="42.0")[0]


def test_two_drivers_with_the_very_same_candidates_take_different_ports() -> None:
    candidates = candidate_ports(EPHEMERAL, seed="same")
    command = [sys.executable, "-c", CLAIM_IN_ANOTHER_PROCESS, *map(str, candidates)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        port, claim = claim_port(candidates)
        claim.close()
        assert port != taken
        other.kill()
    port, claim = claim_port(candidates)
    claim.close()
    assert port == taken, "a driver's death releases its port"


def test_a_port_on_which_somebody_listens_is_passed_over() -> None:
    candidates = candidate_ports(EPHEMERAL, seed="busy")
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", candidates[0]))
        listener.listen()
        port, claim = claim_port(candidates)
        claim.close()
    assert port != candidates[0]


def test_no_free_port_is_one_line() -> None:
    with pytest.raises(LaunchError, match="none of 64 ports outside the ephemeral range is free"):
        claim_port([])


@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        (["127.0.1.1", "10.0.0.5"], "10.0.0.5"),
        (["fd00::5", "10.0.0.5"], "10.0.0.5"),
        (["::1", "fe80::1%eth0", "fd00::5"], "fd00::5"),
        (["127.0.0.1", "0.0.0.0"], None),
        ([], None),
    ],
)
def test_only_an_address_that_means_this_node_elsewhere_is_chosen(addresses: list[str], chosen: str | None) -> None:
    assert reachable_address(addresses) == chosen


def test_one_node_meets_on_loopback_and_so_do_groups_of_processes() -> None:
    assert head_address(Allocation(1, 4, None, ("node1",)), SITE) == "127.0.0.1"
    assert head_address(TWO_NODES, LOCAL) == "127.0.0.1"


def fake_scontrol(folder: Path, node_address: str) -> None:
    answer = f"NodeName=$3 Arch=x86_64\n   NodeAddr={node_address} Port=6818"
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "{answer}"\n')
    (folder / "scontrol").chmod(0o700)


def test_several_nodes_meet_at_the_address_slurm_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_scontrol(tmp_path, "10.77.0.11")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert head_address(TWO_NODES, SITE) == "10.77.0.11"


@pytest.mark.parametrize("node_address", ["127.0.0.1", "no-such-host.invalid"])
def test_a_head_that_others_cannot_reach_is_refused_in_one_line(
    node_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_scontrol(tmp_path, node_address)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(LaunchError, match=r"node1 .*has no address that other nodes reach.*\n.*network_interface"):
        head_address(TWO_NODES, SITE)


def test_a_named_interface_without_a_usable_address_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"lo on node1: has no address that other nodes reach, only 127\.0\.0\.1"):
        head_address(TWO_NODES, Cluster(name="site", scheduler="slurm", network_interface="lo"))


def test_every_attempt_has_an_id_of_its_own() -> None:
    allocation = Allocation(1, 1, None, ("box",))
    meetings = [arrange_meeting(allocation, LOCAL, job_id="local:7:9", attempt=0) for _ in range(2)]
    for meeting in meetings:
        meeting.claim.close()
    assert len({meeting.rdzv_id for meeting in meetings}) == 2
    assert all(meeting.rdzv_id.startswith("local-7-9.0.") for meeting in meetings)
    assert meetings[0].endpoint.port != meetings[1].endpoint.port
