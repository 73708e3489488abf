"""Which part of launch.json is a node's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import LaunchError
from orchestrator.node.launch import NodeLaunch, node_launch, variables_here

LAUNCH: dict[str, Any] = {
    "attempt": 3,
    "endpoint": {"host": "10.0.0.1", "port": 20000},
    "accelerator": "cpu",
    "gpus_per_node": 2,
    "cpus_per_node": 8,
    "binds_cpus": True,
    "hang_timeout_s": 60,
    "environment": {"OMP_NUM_THREADS": "4"},
    "nodes": [
        {"name": "node2", "node_rank": 0, "argv": ["first"]},
        {"name": "node1", "node_rank": 1, "argv": ["second"]},
    ],
}


def own(env: dict[str, str], node_rank: int | None = None) -> NodeLaunch:
    return node_launch(LAUNCH, where="launch.json", node_rank=node_rank, env=env)


def test_slurms_name_for_the_node_counts_more_than_its_number() -> None:
    assert own({"SLURMD_NODENAME": "node2", "SLURM_NODEID": "1"}).argv == ("first",)


def test_slurms_number_counts_where_its_name_is_unknown() -> None:
    assert own({"SLURM_NODEID": "1"}).node == "node1"


def test_a_given_rank_counts_most() -> None:
    launch = own({"SLURMD_NODENAME": "node2"}, node_rank=1)
    assert (launch.node, launch.node_rank, launch.attempt) == ("node1", 1, 3)
    assert launch.environment == {"OMP_NUM_THREADS": "4"}
    assert (list(launch.ranks), launch.other_nodes, launch.hang_timeout_s) == ([2, 3], ("node2",), 60)


@pytest.mark.parametrize("env", [{}, {"SLURMD_NODENAME": "node9"}, {"SLURM_NODEID": "2"}])
def test_a_stranger_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(LaunchError, match="is not one of the attempt's 2 nodes"):
        own(env)


@pytest.mark.parametrize(("usable_cpus", "threads"), [(16, "4"), (8, "4"), (4, "2"), (1, "1")])
def test_a_rank_never_gets_more_threads_than_its_share_of_the_cores_there_are(usable_cpus: int, threads: str) -> None:
    assert variables_here(own({}, node_rank=0), usable_cpus=usable_cpus) == {"OMP_NUM_THREADS": threads}


def test_threads_that_the_recipe_sets_itself_are_left_alone() -> None:
    launch = replace(own({}, node_rank=0), environment={})
    assert variables_here(launch, usable_cpus=1) == {}
