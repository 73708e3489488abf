"""The job script: golden bytes, the values it refuses, and that bash runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Allocation, Cluster, NodeType, Partition
from orchestrator.errors import RecipeError
from orchestrator.launch.job_script import job_script, warned_ahead_s
from orchestrator.plan.plan import make_plan, requested_allocation
from orchestrator.recipe.schema import Resources
from tests.plan.test_plan import recipe

GOLDEN = Path(__file__).parent.parent / "golden"
SITE = Cluster(
    name="site",
    scheduler="slurm",
    gpu_request="gres",
    partitions={"debug": Partition(nodes=NodeType(num_nodes=4, gpus=4, cpus=8), default=True)},
)
OTHER_SITE = SITE.model_copy(update={"gpu_request": "gpus-per-node"})
TYPED: dict[str, Any] = {"num_nodes": 2, "gpus_per_node": 4, "gpu_type": "a100"}
FULL: dict[str, Any] = {
    "num_nodes": 2,
    "gpus_per_node": 4,
    "gpu_type": "a100",
    "memory": "1.5G",
    "walltime": "1-2:00:00",
    "partition": "debug",
    "account": "lab",
    "qos": "high",
    "constraint": "ib&a100",
}


def script(
    resources: dict[str, Any],
    cluster: Cluster,
    *,
    run_dir: str = "/home/ada/runs/toy-1a2b3c4d",
    save_s: float | None = None,
) -> str:
    asked = recipe(resources=resources)
    plan = make_plan(asked, cluster, requested_allocation(asked, cluster, accelerator="cpu"))
    place = PurePosixPath(run_dir)
    return job_script(asked.resources, plan, cluster, run_dir=place, python="/venv/bin/python", save_s=save_s)


@pytest.mark.parametrize(
    ("name", "resources", "cluster"),
    [
        ("job_slurm_full.sh", FULL, SITE),
        ("job_slurm_typed.sh", TYPED, OTHER_SITE),
        ("job_local.sh", {}, LOCAL),
    ],
)
def test_the_script_is_the_golden_one_byte_for_byte(name: str, resources: dict[str, Any], cluster: Cluster) -> None:
    assert script(resources, cluster) == (GOLDEN / name).read_text()


@pytest.mark.parametrize(("resources", "cluster"), [(FULL, SITE), (TYPED, OTHER_SITE)], ids=["full", "typed"])
def test_bash_runs_the_script_and_its_one_command_is_the_driver(
    tmp_path: Path, resources: dict[str, Any], cluster: Cluster
) -> None:
    """Executed, not only compared: a python that prints its arguments stands in for the interpreter."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o700)
    asked = recipe(resources=resources)
    plan = make_plan(asked, cluster, Allocation(2, 4, 8))
    run_dir = PurePosixPath("/home/ada/runs/toy")
    text = job_script(asked.resources, plan, cluster, run_dir=run_dir, python=str(python))
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["-m", "orchestrator.job", "/home/ada/runs/toy"]


@pytest.mark.parametrize(
    ("walltime", "save_s", "warned_s"),
    [
        ("1:00:00", None, 60),
        ("1:00:00", 5.0, 60),
        ("1:00:00", 41.2, 134),
        ("0:06:00", 41.2, 90),
        ("0:04:01", 400.0, 60),
        ("0:04:00", 41.2, None),
        (None, 41.2, None),
    ],
)
def test_a_job_is_warned_three_saves_ahead_a_minute_at_least_and_a_quarter_of_its_time_at_most(
    walltime: str | None, save_s: float | None, warned_s: int | None
) -> None:
    text = script({"walltime": walltime} if walltime else {}, SITE, save_s=save_s)
    found = [line for line in text.splitlines() if "--signal" in line]
    assert found == ([] if warned_s is None else [f"#SBATCH --signal=USR2@{warned_s}"])
    assert warned_ahead_s(text) == (warned_s or 60)


@pytest.mark.parametrize("value", ["x\nrm -rf /", "$(id)", "`id`", "a b", "--wrap=id", "x;id", "é", "x\u2028y", ""])
def test_text_that_a_shell_or_sbatch_could_take_for_more_is_never_a_resource(value: str) -> None:
    with pytest.raises(ValueError, match="partition"):
        Resources(partition=value)


@pytest.mark.parametrize("constraint", ["ib&a100", "(a100|h100)&ib", "[rack1|rack2]", "[rack1*2&rack2*4]"])
def test_a_constraint_is_handed_on_in_every_form_that_slurm_knows(constraint: str) -> None:
    assert f"#SBATCH --constraint={constraint}\n" in script({"constraint": constraint}, SITE)


@pytest.mark.parametrize(
    ("request_form", "directive"), [("gres", "--gres=gpu:4"), ("gpus-per-node", "--gpus-per-node=4")]
)
def test_without_a_type_any_gpu_will_do(request_form: str, directive: str) -> None:
    site = SITE.model_copy(update={"gpu_request": request_form})
    assert f"#SBATCH {directive}\n" in script({"gpus_per_node": 4}, site)


def test_a_site_that_takes_no_request_for_gpus_gets_none() -> None:
    text = script({"gpus_per_node": 4}, SITE.model_copy(update={"gpu_request": "none"}))
    assert "gpu" not in text.replace("toy", "")


@pytest.mark.parametrize("value", ["a100:8", "a100,gpu", "a 100", "(null)", ""])
def test_a_gpu_type_is_one_plain_word(value: str) -> None:
    with pytest.raises(ValueError, match="gpu_type"):
        Resources(gpu_type=value)


def test_a_run_directory_with_a_space_in_its_path_is_refused() -> None:
    with pytest.raises(RecipeError, match="may not stand in a job script"):
        script({}, SITE, run_dir="/home/ada/my runs/toy")


def test_the_interpreter_is_quoted_for_the_shell() -> None:
    plan = make_plan(recipe(), LOCAL, Allocation(1, 1))
    text = job_script(Resources(), plan, LOCAL, run_dir=PurePosixPath("/r"), python="/my venv/bin/python")
    assert "exec '/my venv/bin/python' -m orchestrator.job /r\n" in text
