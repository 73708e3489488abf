"""What the driver writes down for every node to start."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Allocation, Cluster, NodeType, Partition
from orchestrator.job.launch_file import launch_json, shutdown_timeout_s, too_long_a_save
from orchestrator.launch.torchrun import Endpoint
from orchestrator.plan.plan import make_plan
from tests.job.runs import recipe_of

NODES = NodeType(num_nodes=2, cpus=8)
SITE = Cluster(
    name="site",
    scheduler="slurm",
    shutdown_grace_s=30,
    binds_cpus=True,
    partitions={"spare": Partition(nodes=NODES, grace_s=120), "short": Partition(nodes=NODES, grace_s=10)},
)


def launch(
    *,
    arguments: tuple[str, ...] = (),
    own_environment: dict[str, str] | None = None,
    cluster: Cluster = SITE,
    ends_at: float | None = None,
) -> dict[str, Any]:
    recipe, allocation = recipe_of({}, arguments), Allocation(2, 2, 8, ("node1", "node2"), "cuda")
    return launch_json(
        run_dir=PurePath("/runs/a"),
        attempt=1,
        attempt_dir=PurePath("/runs/a/attempts/001"),
        recipe=recipe,
        cluster=cluster,
        allocation=allocation,
        plan=make_plan(recipe, SITE.model_copy(update={"partitions": {}}), allocation),
        endpoint=Endpoint("10.0.0.1", 20000),
        rdzv_id="41.1.token",
        own_environment=own_environment or {},
        python="python3",
        ends_at=ends_at,
    )


def test_every_node_has_its_own_rank_and_all_have_one_meeting_point() -> None:
    found = launch()
    assert [(node["name"], node["node_rank"]) for node in found["nodes"]] == [("node1", 0), ("node2", 1)]
    for node in found["nodes"]:
        assert {"--master-addr=10.0.0.1", "--master-port=20000", "--rdzv-id=41.1.token"} <= set(node["argv"])
        assert f"--node-rank={node['node_rank']}" in node["argv"]
    assert (found["accelerator"], found["cpus_per_node"], found["binds_cpus"]) == ("cuda", 8, True)
    assert found["hang_timeout_s"] == 60


def test_a_command_is_filled_in_from_the_plan_of_the_real_allocation() -> None:
    argv = launch(arguments=("--micro", "${plan.micro_batch_size}"))["nodes"][0]["argv"]
    assert argv[-4:] == ["python3", "script.py", "--micro", "2"]


def test_torchrun_ends_its_ranks_before_the_scheduler_does() -> None:
    assert launch()["shutdown_timeout_s"] == 29
    assert "--shutdown-timeout=29" in launch()["nodes"][0]["argv"]


@pytest.mark.parametrize(
    ("cluster", "partition", "save_s", "left_s"),
    [
        (SITE, None, 400.0, 29),
        (SITE, "spare", None, 119),
        (SITE, "short", 400.0, 29),
        (LOCAL, None, None, 24),
        (LOCAL, None, 2.0, 24),
        (LOCAL, None, 41.2, 124),
    ],
)
def test_ranks_have_what_slurm_leaves_them_and_on_this_machine_what_their_saves_need(
    cluster: Cluster, partition: str | None, save_s: float | None, left_s: int
) -> None:
    assert shutdown_timeout_s(cluster, partition, save_s) == left_s


def test_people_are_told_where_a_save_is_too_long_for_a_preemption_and_only_there() -> None:
    assert too_long_a_save(None, left_s=29) is None and too_long_a_save(29.0, left_s=29) is None
    told = too_long_a_save(41.3, left_s=29)
    assert told is not None and told.startswith("a save takes 41 s, a preemption leaves 29 s")
    assert told.endswith("lower checkpoint.every, or ask for a longer GraceTime")


def test_the_warning_of_a_time_limit_starts_no_clock_at_torchrun_where_slurm_sends_it_to_every_rank() -> None:
    """After other signals, and without Slurm after all, ranks are killed when their time is over."""
    (handled,) = [word for word in launch()["nodes"][0]["argv"] if word.startswith("--signals-to-handle=")]
    assert handled == "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    (handled,) = [word for word in launch(cluster=LOCAL)["nodes"][0]["argv"] if word.startswith("--signals-to-handle=")]
    assert handled.endswith(",SIGUSR1,SIGUSR2")


def test_the_ranks_know_when_their_job_ends() -> None:
    assert launch(ends_at=1.75e9)["ends_at"] == 1.75e9 and launch()["ends_at"] is None


def test_what_the_recipe_sets_itself_is_left_to_it_and_never_written_down() -> None:
    environment = launch(own_environment={"OMP_NUM_THREADS": "1", "TOKEN": "s3cret"})["environment"]
    assert "OMP_NUM_THREADS" not in environment and "TOKEN" not in environment
    assert launch()["environment"]["OMP_NUM_THREADS"] == "4"
    assert environment["ORCHESTRATE_ATTEMPT_DIR"] == "/runs/a/attempts/001"
