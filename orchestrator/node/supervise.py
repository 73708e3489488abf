"""One node of one attempt: check it, run torchrun, pass a signal on, keep the node's file and journal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from orchestrator.machine import num_oom_kills, num_usable_cpus
from orchestrator.node.failures import SIGNAL_SEEN, failed_ranks
from orchestrator.node.health import Check, check_node
from orchestrator.node.heartbeat import NodeFile
from orchestrator.node.launch import NodeLaunch, variables_here
from orchestrator.node.sample import Sampler
from orchestrator.processes import STOP_SIGNALS, handles_signal, next_signal, start_child
from orchestrator.run_dir import RunDir
from orchestrator.tracking.journal import Journal

LONGEST_LOG_READ = 256 * 1024
_LOOK_S = 1.0
_LOOK_WHILE_STOPPING_S = 0.1
_SLURM_MAY_SIGNAL_S = 0.5


def supervise(run: RunDir, launch: NodeLaunch) -> int:
    """Run the node to its end. 0: torchrun ended well, or was asked to stop; else 1, which ends the other nodes.

    A node that was asked never ends the others: their ranks, rank 0 perhaps, may still be saving. Whether they did
    is read from stop.json, not from here. stdout and stderr are the node's log already; signals are held.
    """
    attempt = run.attempt(launch.attempt)
    file = NodeFile(
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
    )
    file.try_write()
    checks = check_node(run, launch)
    failed = [check for check in checks if not check.ok]
    if failed:
        _tell_failed(launch.node, failed)
        file.try_write(state="ended", checks=[check.as_json() for check in checks])
        return 1
    killed_before = num_oom_kills()
    torchrun = Torchrun(launch, attempt.node_log(launch.node))
    file.try_write(state="running", checks=[check.as_json() for check in checks], torchrun_pid=torchrun.pid)
    with Journal(run.path, attempt=launch.attempt, node=launch.node, rank=None) as journal, Sampler(journal):
        journal.event("node", {"checks": [check.as_json() for check in checks]})
        exit_code = torchrun.wait(file)
    failures = failed_ranks(torchrun.log_text()) if exit_code else []
    oom_kills = num_oom_kills() - killed_before
    file.try_write(state="ended", exit_code=exit_code, failed_ranks=failures, oom_kills=oom_kills)
    return 0 if exit_code == 0 or torchrun.asked else 1


def _tell_failed(node: str, failed: list[Check]) -> None:
    for check in failed:
        print(f"{node}: check of the {check.name} failed: {check.detail}", flush=True)


class Torchrun:
    """torchrun as our child. It is handed one signal at most.

    torchrun takes a second signal while its ranks save, and dies of a third. Slurm signals every process of a step,
    torchrun included; a person signals the driver, which signals us alone. So the first signal is passed on only when
    torchrun shows no sign of having got it, and no other is. Until it has set its handlers, it ignores signals.
    """

    def __init__(self, launch: NodeLaunch, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] = start_child(
            launch.argv,
            env={**os.environ, **variables_here(launch, usable_cpus=num_usable_cpus())},
            ignored=STOP_SIGNALS,
        )
        self.asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._passed_on = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, file: NodeFile) -> int:
        """Its exit status, negative for a signal; meanwhile beat in `file` and pass a signal on."""
        while (exit_code := self._process.poll()) is None:
            stopping = self.asked is not None and not self._passed_on
            number = next_signal(_LOOK_WHILE_STOPPING_S if stopping else _LOOK_S)
            if number is not None and self.asked is None:
                print(f"supervisor: got {number.name}", flush=True)
                self.asked, self._asked_at = number, time.monotonic()
                file.try_write(asked=number.name)
            if self.asked is not None and not self._passed_on:
                self._pass_on(self.asked)
            file.beat()
        return exit_code

    def _pass_on(self, number: signal.Signals) -> None:
        if time.monotonic() - self._asked_at < _SLURM_MAY_SIGNAL_S or not handles_signal(self.pid, number):
            return
        if SIGNAL_SEEN not in self.log_text():
            self._process.send_signal(number)
        self._passed_on = True

    def log_text(self) -> str:
        """The end of the node's log, which holds torchrun's own words."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - LONGEST_LOG_READ))
            return file.read().decode(errors="replace")
