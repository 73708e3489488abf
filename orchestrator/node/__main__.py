"""`python -m orchestrator.node RUN ATTEMPT [--node-rank R]`: the supervisor of one node."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.files import PRIVATE_FILE, read_json
from orchestrator.node.launch import node_launch
from orchestrator.node.supervise import supervise
from orchestrator.processes import die_with_parent, hold_signals
from orchestrator.run_dir import RunDir


def main(arguments: list[str]) -> int:
    """Supervise this node; 0 when it ended well or saved, else 1."""
    parser = argparse.ArgumentParser("python -m orchestrator.node", description="Supervise one node of an attempt.")
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("attempt", type=int, help="the attempt's number")
    parser.add_argument("--node-rank", type=int, help="this node's number (default: by Slurm's variables)")
    given = parser.parse_args(arguments)
    hold_signals()
    die_with_parent(signal.SIGTERM)
    run = RunDir(given.run)
    attempt = run.attempt(given.attempt)
    launch = node_launch(
        read_json(attempt.launch), where=str(attempt.launch), node_rank=given.node_rank, env=os.environ
    )
    _write_into(attempt.node_log(launch.node))
    return supervise(run, launch)


def _write_into(log: Path) -> None:
    """Append stdout and stderr to `log`, those of torchrun too; before that they went to the job's log."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
    os.dup2(fd, 1)
    os.dup2(fd, 2)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OrchestratorError, OSError) as error:
        sys.exit(f"supervisor: {error}")
