"""launch.json as one node reads it. The driver has written it; the supervisor takes its command from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import LaunchError, Problem


@dataclass(frozen=True)
class NodeLaunch:
    """What one node runs in one attempt, and what it must find before it does."""

    attempt: int
    node: str
    node_rank: int
    argv: tuple[str, ...]
    """The torchrun command."""
    environment: dict[str, str]
    """Variables of the ranks that are no secret."""
    host: str
    port: int
    accelerator: str
    gpus_per_node: int
    cpus_per_node: int | None
    binds_cpus: bool
    hang_timeout_s: float
    """No silence of a rank that is shorter is a hang."""
    driver_silence_s: float | None = None
    """After so long without its heartbeat the driver is gone; None where nobody could take over from it."""
    other_nodes: tuple[str, ...] = ()
    """In the order of their ranks."""

    @property
    def ranks(self) -> range:
        """The numbers of this node's ranks."""
        return range(self.node_rank * self.gpus_per_node, (self.node_rank + 1) * self.gpus_per_node)


def variables_here(launch: NodeLaunch, *, usable_cpus: int) -> dict[str, str]:
    """The ranks' variables on this node: as many threads as planned, but no more than its cores can run at once.

    A scheduler that pins nothing may promise more cores than there are; ranks that fight for them lose time.
    """
    planned = launch.environment.get("OMP_NUM_THREADS")
    if planned is None:
        return launch.environment
    share = max(1, usable_cpus // launch.gpus_per_node)
    return {**launch.environment, "OMP_NUM_THREADS": str(min(int(planned), share))}


def node_launch(launch: dict[str, Any], *, where: str, node_rank: int | None, env: Mapping[str, str]) -> NodeLaunch:
    """The part of launch.json that is this node's: by `node_rank`, else by Slurm's name for the node, else its number.

    The name comes first because node 0 must be the node whose port was probed. Raises LaunchError.
    """
    nodes = {node["node_rank"]: node for node in launch["nodes"]}
    by_name = {node["name"]: node for node in launch["nodes"]}
    if node_rank is None:
        node = by_name.get(env.get("SLURMD_NODENAME", "")) or nodes.get(int(env.get("SLURM_NODEID", "-1")))
    else:
        node = nodes.get(node_rank)
    if node is None:
        asked = env.get("SLURMD_NODENAME") or f"node rank {node_rank}"
        fix = "start it by srun, or give --node-rank"
        raise LaunchError(Problem(where, f"{asked} is not one of the attempt's {len(nodes)} nodes", fix))
    return NodeLaunch(
        attempt=launch["attempt"],
        node=node["name"],
        node_rank=node["node_rank"],
        argv=tuple(node["argv"]),
        environment=launch["environment"],
        host=launch["endpoint"]["host"],
        port=launch["endpoint"]["port"],
        accelerator=launch["accelerator"],
        gpus_per_node=launch["gpus_per_node"],
        cpus_per_node=launch["cpus_per_node"],
        binds_cpus=launch["binds_cpus"],
        hang_timeout_s=launch["hang_timeout_s"],
        driver_silence_s=launch.get("driver_silence_s"),
        other_nodes=tuple(other["name"] for other in launch["nodes"] if other is not node),
    )
