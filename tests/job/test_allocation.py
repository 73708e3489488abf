"""The allocation of a job, from Slurm's variables and from this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster import Allocation, Cluster
from orchestrator.errors import LaunchError
from orchestrator.job.allocation import Accelerator, allocation_from_slurm, allocation_local, scontrol_hostnames
from tests.job.runs import recipe_of

SITE = Cluster(name="site", scheduler="slurm")
NAMES = {"node[1-2]": ("node1", "node2"), "gpu7": ("gpu7",)}


def from_slurm(
    env: dict[str, str], *, accelerator: Accelerator = "cuda", cluster: Cluster = SITE, gpus_per_node: int = 2
) -> Allocation:
    recipe = recipe_of({"gpus_per_node": gpus_per_node})
    return allocation_from_slurm(env, recipe, cluster, accelerator=accelerator, hostnames_of=NAMES.__getitem__)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (
            {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_ON_NODE": "64"},
            Allocation(2, 4, 64, ("node1", "node2"), "cuda"),
        ),
        (
            {"SLURM_JOB_NODELIST": "gpu7", "SLURM_JOB_GPUS": "0,3", "SLURM_CPUS_PER_TASK": "8"},
            Allocation(1, 2, 8, ("gpu7",), "cuda"),
        ),
        (
            {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "1", "SLURMD_NODENAME": "node2"},
            Allocation(2, 1, None, ("node2", "node1"), "cuda"),
        ),
    ],
)
def test_slurms_variables_say_what_the_job_got(env: dict[str, str], expected: Allocation) -> None:
    assert from_slurm(env) == expected


def test_ranks_on_cpus_are_as_many_as_asked_for() -> None:
    assert from_slurm({"SLURM_JOB_NODELIST": "gpu7"}, accelerator="cpu", gpus_per_node=3).gpus_per_node == 3


def test_a_site_whose_slurm_knows_no_gpus_gives_as_many_as_asked_for() -> None:
    whole_nodes = Cluster(name="site", scheduler="slurm", gpu_request="none")
    assert from_slurm({"SLURM_JOB_NODELIST": "gpu7"}, cluster=whole_nodes).gpus_per_node == 2


def test_a_job_without_gpus_is_refused_where_gpus_are_asked_for() -> None:
    with pytest.raises(LaunchError, match=r"SLURM_GPUS_ON_NODE: not set: Slurm gave this job no GPUs\n.*gpu_request"):
        from_slurm({"SLURM_JOB_NODELIST": "gpu7"})


def test_outside_of_a_job_the_missing_variable_is_named() -> None:
    with pytest.raises(LaunchError, match="SLURM_JOB_NODELIST: not set: this is no Slurm job"):
        from_slurm({})


@pytest.mark.parametrize("nodelist", ["node[1-3]", "gpu7", "a[01-02],b4"])
def test_slurm_itself_expands_a_node_list(nodelist: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$1 $2" = "show hostnames" ] && printf "first-of-%s\\nsecond\\n" "$3"\n')
    scontrol.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert scontrol_hostnames(nodelist) == (f"first-of-{nodelist}", "second")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "no such program on PATH"),
        ("#!/bin/sh\necho 'scontrol: error: Invalid hostlist' >&2\nexit 1\n", "scontrol: error: Invalid hostlist"),
    ],
)
def test_a_scontrol_that_cannot_answer_is_one_line(
    program: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program is not None:
        (tmp_path / "scontrol").write_text(program)
        (tmp_path / "scontrol").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=f"scontrol show hostnames x: {message}"):
        scontrol_hostnames("x")


def test_the_groups_of_processes_on_this_machine_share_its_cores_and_have_names_of_their_own() -> None:
    recipe = recipe_of({"num_nodes": 2, "gpus_per_node": 2})
    allocation = allocation_local(recipe, accelerator="cpu", host="box.example.org", usable_cpus=7)
    assert allocation == Allocation(2, 2, 3, ("box-0", "box-1"), "cpu")


def test_one_node_on_this_machine_is_the_machine() -> None:
    recipe = recipe_of({"gpus_per_node": 2, "cpus_per_gpu": 4})
    allocation = allocation_local(recipe, accelerator="cpu", host="box", usable_cpus=2)
    assert allocation == Allocation(1, 2, 8, ("box",), "cpu")
