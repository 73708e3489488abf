"""What the driver writes down for every node to start."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from orchestrator.cluster import Allocation, Cluster
from orchestrator.job.launch_file import launch_json
from orchestrator.launch.torchrun import Endpoint
from orchestrator.plan.plan import make_plan
from tests.job.runs import recipe_of

SITE = Cluster(name="site", scheduler="slurm", shutdown_grace_s=30, binds_cpus=True)


def launch(*, arguments: tuple[str, ...] = (), own_environment: dict[str, str] | None = None) -> dict[str, Any]:
    recipe, allocation = recipe_of({}, arguments), Allocation(2, 2, 8, ("node1", "node2"), "cuda")
    return launch_json(
        run_dir=PurePath("/runs/a"),
        attempt=1,
        attempt_dir=PurePath("/runs/a/attempts/001"),
        recipe=recipe,
        cluster=SITE,
        allocation=allocation,
        plan=make_plan(recipe, SITE, allocation),
        endpoint=Endpoint("10.0.0.1", 20000),
        rdzv_id="41.1.token",
        own_environment=own_environment or {},
        python="python3",
    )


def test_every_node_has_its_own_rank_and_all_have_one_meeting_point() -> None:
    found = launch()
    assert [(node["name"], node["node_rank"]) for node in found["nodes"]] == [("node1", 0), ("node2", 1)]
    for node in found["nodes"]:
        assert {"--master-addr=10.0.0.1", "--master-port=20000", "--rdzv-id=41.1.token"} <= set(node["argv"])
        assert f"--node-rank={node['node_rank']}" in node["argv"]
    assert (found["accelerator"], found["cpus_per_node"], found["binds_cpus"]) == ("cuda", 8, True)


def test_a_command_is_filled_in_from_the_plan_of_the_real_allocation() -> None:
    argv = launch(arguments=("--micro", "${plan.micro_batch_size}"))["nodes"][0]["argv"]
    assert argv[-4:] == ["python3", "script.py", "--micro", "2"]


def test_torchrun_ends_its_ranks_before_the_scheduler_does() -> None:
    assert launch()["shutdown_timeout_s"] == 29
    assert "--shutdown-timeout=29" in launch()["nodes"][0]["argv"]


def test_what_the_recipe_sets_itself_is_left_to_it_and_never_written_down() -> None:
    environment = launch(own_environment={"OMP_NUM_THREADS": "1", "TOKEN": "s3cret"})["environment"]
    assert "OMP_NUM_THREADS" not in environment and "TOKEN" not in environment
    assert launch()["environment"]["OMP_NUM_THREADS"] == "4"
    assert environment["ORCHESTRATE_ATTEMPT_DIR"] == "/runs/a/attempts/001"
