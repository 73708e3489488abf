"""torchrun is given exact words: static rendezvous, handled signals, one log a rank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import PurePosixPath

from orchestrator.launch.torchrun import SIGNALS, Endpoint, World, torchrun_command, worker_command

WORLD = World(
    run_dir=PurePosixPath("/runs/toy"),
    attempt=3,
    rdzv_id="41.3.abcd",
    endpoint=Endpoint("10.0.0.7", 23817),
    num_nodes=2,
    gpus_per_node=4,
    shutdown_timeout_s=20,
)


def test_each_node_gets_its_rank_and_all_the_same_endpoint() -> None:
    worker = worker_command(WORLD.run_dir, WORLD.attempt, python="py")
    assert torchrun_command(WORLD, node_rank=1, command=worker, python="py") == (
        *("py", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=4", "--node-rank=1"),
        *("--rdzv-backend=static", "--rdzv-id=41.3.abcd", "--master-addr=10.0.0.7", "--master-port=23817"),
        *("--max-restarts=0", "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"),
        *("--shutdown-timeout=20", "--no-python", "py", "-m", "orchestrator.node.rank", "/runs/toy", "3", "--"),
        *("py", "-m", "orchestrator.worker", "/runs/toy", "3"),
    )


def test_this_torchrun_takes_these_options() -> None:
    """The installed torchrun parses the command: its parser accepts every option and finds the program."""
    command = torchrun_command(WORLD, node_rank=0, command=("true",), python=sys.executable)
    program = (
        "import sys; from torch.distributed.run import parse_args; a = parse_args(sys.argv[1:]);"
        "print(a.rdzv_backend, a.master_port, a.node_rank, a.signals_to_handle, a.shutdown_timeout, a.training_script)"
    )
    done = subprocess.run(
        (sys.executable, "-c", program, *command[3:]), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["static", "23817", "0", ",".join(SIGNALS), "20", sys.executable]
