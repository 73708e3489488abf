"""launch.json: what every node of an attempt starts. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from orchestrator.cluster import Allocation, Cluster
from orchestrator.heartbeat import SILENT_S
from orchestrator.last_save import SAVES
from orchestrator.launch.environment import rank_environment
from orchestrator.launch.torchrun import Endpoint, World, signals_for, torchrun_command, worker_command
from orchestrator.launch.user_command import user_command
from orchestrator.plan.plan import Plan
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import ATTEMPT_VARIABLE
from orchestrator.units import parse_walltime

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
    ends_at: float | None = None,
    save_s: float | None = None,
) -> dict[str, Any]:
    """The contents of launch.json. Variables that the recipe sets itself (`own_environment`) are left to it.

    `ends_at`: when the scheduler ends the job, in seconds since the epoch. `save_s`: what the run's saves took so far.
    """
    world = World(
        run_dir=run_dir,
        attempt=attempt,
        rdzv_id=rdzv_id,
        endpoint=endpoint,
        num_nodes=allocation.num_nodes,
        gpus_per_node=allocation.gpus_per_node,
        shutdown_timeout_s=shutdown_timeout_s(cluster, plan.topology.partition, save_s),
        signals=signals_for(cluster.scheduler),
    )
    if recipe.command:
        command = user_command(recipe.command, plan, run_dir, python=python)
    else:
        command = worker_command(run_dir, attempt, python=python)
    derived = {**rank_environment(allocation, cluster), ATTEMPT_VARIABLE: str(attempt_dir)}
    return {
        "attempt": attempt,
        "rdzv_id": rdzv_id,
        "endpoint": {"host": endpoint.host, "port": endpoint.port},
        "accelerator": allocation.accelerator,
        "gpus_per_node": allocation.gpus_per_node,
        "cpus_per_node": allocation.cpus_per_node,
        "binds_cpus": cluster.binds_cpus,
        "hang_timeout_s": parse_walltime(recipe.hang_timeout),
        "ends_at": ends_at,
        "driver_silence_s": cluster.node_timeout_s + SILENT_S if cluster.scheduler == "slurm" else None,
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


def shutdown_timeout_s(cluster: Cluster, partition: str | None, save_s: float | None) -> int:
    """Seconds that ranks have to save in after a signal. Where Slurm kills them, a little less than it leaves; on this
    machine nobody else does, so a save that is known to be long has its time."""
    left_s = max(1, cluster.grace_in(partition) - _TORCHRUN_ENDS_FIRST_S)
    return left_s if cluster.scheduler == "slurm" else max(left_s, math.ceil(SAVES * (save_s or 0.0)))


def too_long_a_save(save_s: float | None, *, left_s: int) -> str | None:
    """What people should know where a save takes longer than a preemption leaves; None where it fits."""
    if save_s is None or save_s <= left_s:
        return None
    return (
        f"a save takes {save_s:.0f} s, a preemption leaves {left_s} s and costs what came since the last checkpoint: "
        "lower checkpoint.every, or ask for a longer GraceTime"
    )
