"""launch.json: what every node of an attempt starts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from orchestrator.cluster import Allocation, Cluster
from orchestrator.launch.environment import rank_environment
from orchestrator.launch.torchrun import Endpoint, World, torchrun_command, worker_command
from orchestrator.launch.user_command import user_command
from orchestrator.plan.plan import Plan
from orchestrator.recipe.schema import Recipe

_TORCHRUN_ENDS_FIRST_S = 1
"""Before the scheduler kills: enough for the driver to write the verdict."""


def launch_json(
    *,
    run_dir: PurePath,
    attempt: int,
    attempt_dir: PurePath,
    recipe: Recipe,
    cluster: Cluster,
    allocation: Allocation,
    plan: Plan,
    endpoint: Endpoint,
    rdzv_id: str,
    own_environment: Mapping[str, str],
    python: str,
) -> dict[str, Any]:
    """The contents of launch.json. Variables that the recipe sets itself (`own_environment`) are left to it."""
    world = World(
        run_dir=run_dir,
        attempt=attempt,
        rdzv_id=rdzv_id,
        endpoint=endpoint,
        num_nodes=allocation.num_nodes,
        gpus_per_node=allocation.gpus_per_node,
        shutdown_timeout_s=max(1, cluster.shutdown_grace_s - _TORCHRUN_ENDS_FIRST_S),
    )
    if recipe.command:
        command = user_command(recipe.command, plan, run_dir, python=python)
    else:
        command = worker_command(run_dir, attempt, python=python)
    derived = {**rank_environment(allocation, cluster), "ORCHESTRATE_ATTEMPT_DIR": str(attempt_dir)}
    return {
        "attempt": attempt,
        "rdzv_id": rdzv_id,
        "endpoint": {"host": endpoint.host, "port": endpoint.port},
        "accelerator": allocation.accelerator,
        "gpus_per_node": allocation.gpus_per_node,
        "cpus_per_node": allocation.cpus_per_node,
        "binds_cpus": cluster.binds_cpus,
        "nodes": [
            {
                "name": name,
                "node_rank": node_rank,
                "argv": list(torchrun_command(world, node_rank=node_rank, command=command, python=python)),
            }
            for node_rank, name in enumerate(allocation.node_names)
        ],
        "environment": {name: value for name, value in derived.items() if name not in own_environment},
        "shutdown_timeout_s": world.shutdown_timeout_s,
    }
