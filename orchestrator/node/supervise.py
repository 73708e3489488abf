"""One node of one attempt: check it, run torchrun, watch over its ranks, keep the node's file and journal."""

from __future__ import annotations

import os
import socket
import time

from orchestrator.heartbeat import Heartbeat
from orchestrator.machine import num_oom_kills
from orchestrator.node.deputy import Deputy
from orchestrator.node.failures import failed_ranks
from orchestrator.node.health import Check, check_node
from orchestrator.node.launch import NodeLaunch
from orchestrator.node.sample import Sampler
from orchestrator.node.torchrun import Torchrun
from orchestrator.node.watch import Watch, pulses
from orchestrator.run_dir import PULSE_VARIABLE, RunDir
from orchestrator.talk import tell
from orchestrator.tracking.journal import Journal


def supervise(run: RunDir, launch: NodeLaunch) -> int:
    """Run the node to its end. 0: torchrun ended well, or was asked to stop; else 1, which ends the other nodes.

    A node that was asked never ends the others: their ranks, rank 0 perhaps, may still be saving. Whether they did
    is read from stop.json, not from here. stdout and stderr are the node's log already; signals are held.
    """
    attempt = run.attempt(launch.attempt)
    file = Heartbeat(
        attempt.node(launch.node),
        node=launch.node,
        node_rank=launch.node_rank,
        host=socket.gethostname(),
        pid=os.getpid(),
        state="checking",
        checks=[],
        started_at=time.time(),
        exit_code=None,
        torchrun_pid=None,
        failed_ranks=[],
        asked=None,
        stand_still=False,
        silent=None,
        hang=None,
    )
    file.try_write()
    checks = check_node(run, launch)
    failed = [check for check in checks if not check.ok]
    if failed:
        _tell_failed(launch.node, failed)
        file.try_write(state="ended", checks=[check.as_json() for check in checks])
        return 1
    killed_before, told = num_oom_kills(), [check.as_json() for check in checks]
    with pulses(launch) as folder:
        torchrun = Torchrun(launch, attempt.node_log(launch.node), {PULSE_VARIABLE: str(folder or "")})
        file.try_write(state="running", checks=told, torchrun_pid=torchrun.pid)
        with Journal(run.path, attempt=launch.attempt, node=launch.node, rank=None) as journal, Sampler(journal):
            journal.event("node", {"checks": told})
            deputy = Deputy(run, attempt, launch)
            exit_code = torchrun.wait(file, Watch(launch, attempt, folder, file), deputy)
    if exit_code and not torchrun.asked and deputy.finds_driver_gone():
        deputy.take_over()
    failures = failed_ranks(torchrun.log_text()) if exit_code else []
    oom_kills = num_oom_kills() - killed_before
    file.try_write(state="ended", exit_code=exit_code, failed_ranks=failures, oom_kills=oom_kills)
    return 0 if exit_code == 0 or torchrun.asked else 1


def _tell_failed(node: str, failed: list[Check]) -> None:
    for check in failed:
        tell(f"{node}: check of the {check.name} failed: {check.detail}")
