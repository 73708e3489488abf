"""What a site cannot give is told before anything is submitted."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Cluster
from orchestrator.plan.resources import check_resources, cpus_per_node
from orchestrator.recipe.schema import Resources

SITE = Cluster.model_validate(
    {
        "name": "site",
        "scheduler": "slurm",
        "accelerator": "cuda",
        "partitions": {
            "gpu": {
                "nodes": {"num_nodes": 4, "gpus": 8, "cpus": 64, "memory": "512G"},
                "max_walltime": "24:00:00",
                "default": True,
            },
            "cpu": {"nodes": {"num_nodes": 2, "cpus": 16}},
        },
    }
)


def told(cluster: Cluster = SITE, **resources: Any) -> list[tuple[str, str, str]]:
    problems = check_resources(Resources(**resources), cluster)
    return [(problem.where, problem.what, problem.fix) for problem in problems]


def test_what_fits_is_not_told() -> None:
    assert told(num_nodes=4, gpus_per_node=8, cpus_per_gpu=8, memory="512G", walltime="24:00:00") == []


def test_this_machine_promises_nothing_and_refuses_nothing() -> None:
    assert told(LOCAL, num_nodes=7, gpus_per_node=9, partition="anything") == []


def test_an_unknown_partition_is_told_with_the_nearest_one() -> None:
    assert told(partition="gpus") == [
        ("resources.partition", "the profile 'site' has no partition 'gpus'", "did you mean 'gpu'?")
    ]


def test_without_a_default_partition_one_must_be_named() -> None:
    partitions = {"cpu": SITE.partitions["cpu"], "more": SITE.partitions["cpu"]}
    ((where, what, fix),) = told(SITE.model_copy(update={"partitions": partitions}))
    assert (where, fix) == ("resources.partition", "choose one of: cpu, more")
    assert "no default partition" in what


def test_everything_that_is_too_much_is_told_at_once() -> None:
    assert told(num_nodes=5, gpus_per_node=8, cpus_per_gpu=9, memory="1T", walltime="1-00:00:01") == [
        ("resources.walltime", "1-00:00:01 is longer than partition 'gpu' allows", 'write "24:00:00" or less'),
        ("resources.num_nodes", "5 nodes are more than the 4 in partition 'gpu'", "write 4 or less"),
        (
            "resources.cpus_per_gpu",
            "8 ranks x 9 CPU cores = 72 are more than the 64 of a node in partition 'gpu'",
            "write 8 or less",
        ),
        ("resources.memory", "1T per node is more than the 512G in partition 'gpu'", 'write "512G" or less'),
    ]


@pytest.mark.parametrize(
    ("partition", "gpus", "fix"),
    [("gpu", 9, "write 8 or less, and more num_nodes"), ("cpu", 1, "choose a partition with GPUs")],
)
def test_more_gpus_than_a_node_has_are_refused(partition: str, gpus: int, fix: str) -> None:
    ((where, _, told_fix),) = told(partition=partition, gpus_per_node=gpus)
    assert (where, told_fix) == ("resources.gpus_per_node", fix)


@pytest.mark.parametrize(
    ("num_nodes", "fix"),
    [(3, "write 8 or less, and more num_nodes"), (4, "write 8 or less: there are 32 GPUs in all")],
)
def test_more_nodes_are_advised_only_where_there_are_as_many(num_nodes: int, fix: str) -> None:
    ((_, _, told_fix),) = told(num_nodes=num_nodes, gpus_per_node=10)
    assert told_fix == fix


def test_where_there_are_no_gpus_ranks_run_on_cores_and_need_one_each() -> None:
    site = SITE.model_copy(update={"accelerator": "cpu"})
    assert told(site, partition="cpu", gpus_per_node=16) == []
    ((where, _, fix),) = told(site, partition="cpu", gpus_per_node=17)
    assert (where, fix) == ("resources.gpus_per_node", "write 16 or less")
    ((where, _, fix),) = told(site, partition="cpu", gpus_per_node=17, cpus_per_gpu=1)
    assert (where, fix) == ("resources.cpus_per_gpu", "write fewer gpus_per_node")


def typed(gpu_type: str | None, gpu_request: str = "gpus-per-node") -> Cluster:
    gpu = SITE.partitions["gpu"]
    nodes = gpu.nodes.model_copy(update={"gpu_type": gpu_type})
    partitions = {**SITE.partitions, "gpu": gpu.model_copy(update={"nodes": nodes})}
    return SITE.model_copy(update={"partitions": partitions, "gpu_request": gpu_request})


def test_another_gpu_type_than_the_profiles_is_told_with_the_one_there_is() -> None:
    assert told(typed("a100"), gpu_type="h100") == [
        (
            "resources.gpu_type",
            "the GPUs in partition 'gpu' are a100, not h100",
            "write a100, take it away, or choose another partition",
        )
    ]


def test_a_gpu_type_that_is_there_or_that_the_profile_does_not_know_is_not_told() -> None:
    assert told(typed("a100"), gpu_type="a100") == []
    assert told(typed(None), gpu_type="h100") == []


def test_where_no_gpus_are_asked_for_no_type_can_be() -> None:
    ((where, what, fix),) = told(typed("a100", gpu_request="none"), gpu_type="a100")
    assert (where, what) == (
        "resources.gpu_type",
        "the profile 'site' asks for no GPUs, so it cannot ask for a type",
    )
    assert fix == "write resources.constraint, if the nodes have such a feature"


@pytest.mark.parametrize(
    ("resources", "cpus"),
    [
        ({"gpus_per_node": 8}, 64),
        ({"gpus_per_node": 2}, 16),
        ({"gpus_per_node": 2, "cpus_per_gpu": 3}, 6),
        ({"gpus_per_node": 32, "partition": "cpu"}, 16),
        ({"partition": "unknown"}, None),
    ],
)
def test_cores_are_asked_for_by_the_gpu_or_by_the_gpus_share_of_the_node(
    resources: dict[str, Any], cpus: int | None
) -> None:
    assert cpus_per_node(Resources(**resources), SITE) == cpus
