"""The words torchrun is given. Text in, text out; equal arguments give equal bytes.

Static rendezvous: node 0 binds the port that the driver probed, a clash is loud, no state is unpickled, and ranks
follow the nodes' order. Signals that a cluster sends are handled, not died of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
"""What torchrun forwards to the ranks instead of dying of it; they save and end."""
WARNING = "SIGUSR2"
"""What the job script asks Slurm to send ahead of the time limit. Slurm sends it to every rank itself, and there is
time; torchrun would end the ranks after `shutdown_timeout_s`, in the midst of a long save, so it is told nothing of it.
"""


def signals_for(scheduler: str) -> tuple[str, ...]:
    """What torchrun handles where jobs are started by `scheduler`."""
    return tuple(name for name in SIGNALS if scheduler != "slurm" or name != WARNING)


@dataclass(frozen=True)
class Endpoint:
    """Where node 0 listens: an address that every node reaches, and a port outside the ephemeral range."""

    host: str
    port: int


@dataclass(frozen=True)
class World:
    """What all torchrun commands of one attempt share."""

    run_dir: PurePath
    attempt: int
    rdzv_id: str
    endpoint: Endpoint
    num_nodes: int
    gpus_per_node: int
    shutdown_timeout_s: int
    """Seconds that ranks have to end after a signal, before they are killed."""
    signals: tuple[str, ...] = SIGNALS
    """What torchrun handles; it ignores the others, as it was started."""


def torchrun_command(world: World, *, node_rank: int, command: tuple[str, ...], python: str) -> tuple[str, ...]:
    """The torchrun command of one node; each rank runs `command` with its output in `logs/rank-N.log`."""
    return (
        *(python, "-m", "torch.distributed.run"),
        f"--nnodes={world.num_nodes}",
        f"--nproc-per-node={world.gpus_per_node}",
        f"--node-rank={node_rank}",
        "--rdzv-backend=static",
        f"--rdzv-id={world.rdzv_id}",
        f"--master-addr={world.endpoint.host}",
        f"--master-port={world.endpoint.port}",
        "--max-restarts=0",
        f"--signals-to-handle={','.join(world.signals)}",
        f"--shutdown-timeout={world.shutdown_timeout_s}",
        "--no-python",
        *(python, "-m", "orchestrator.node.rank", str(world.run_dir), str(world.attempt), "--"),
        *command,
    )


def worker_command(run_dir: PurePath, attempt: int, *, python: str) -> tuple[str, ...]:
    """What each rank runs for a recipe with a model: the package's own training loop."""
    return (python, "-m", "orchestrator.worker", str(run_dir), str(attempt))
