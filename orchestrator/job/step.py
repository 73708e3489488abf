"""The step of an attempt: one supervisor per node, by srun, or as processes of this machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping
from signal import SIGKILL, SIGTERM, Signals
from typing import Protocol

from orchestrator.cluster import Allocation
from orchestrator.errors import LaunchError
from orchestrator.files import read_json
from orchestrator.job.commands import ask
from orchestrator.processes import start_child
from orchestrator.run_dir import AttemptDir, RunDir

_SUPERVISOR_ENDS_S = 15
"""Seconds a supervisor may need after torchrun's own time-out."""
_SLURM_ASKS_S = 0.5


class Step(Protocol):
    """Supervisors on all nodes, running. Its end is the attempt's end."""

    def poll(self) -> int | None:
        """The exit code of the first supervisor that failed, else 0; None while one runs. Negative for a signal."""

    def signal(self, number: Signals) -> None:
        """Ask all ranks to save and end."""

    def killed_nodes(self) -> tuple[str, ...]:
        """Nodes whose supervisor is known to have been killed by somebody else."""


def supervisor_command(run: RunDir, attempt: AttemptDir) -> tuple[str, ...]:
    """The supervisor of one node; under srun it learns from Slurm which node it is on."""
    return (sys.executable, "-m", "orchestrator.node", str(run.path), str(attempt.number))


def srun_command(allocation: Allocation, command: tuple[str, ...]) -> tuple[str, ...]:
    """One task per node. One supervisor's failure ends the others, which might wait for it for ever.

    --cpus-per-task is repeated because srun does not inherit it from sbatch (Slurm 22.05 to 23.02).
    """
    cpus = () if allocation.cpus_per_node is None else (f"--cpus-per-task={allocation.cpus_per_node}",)
    return (
        "srun",
        f"--nodes={allocation.num_nodes}",
        f"--ntasks={allocation.num_nodes}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        *cpus,
        *command,
    )


class SrunStep:
    """Supervisors started by srun inside the allocation."""

    def __init__(
        self,
        command: tuple[str, ...],
        allocation: Allocation,
        attempt: AttemptDir,
        *,
        job_id: str,
        env: Mapping[str, str],
    ) -> None:
        self._node_files = [attempt.node(name) for name in allocation.node_names]
        self._job_id = job_id
        self._asked: tuple[Signals, float] | None = None
        self._srun = start_child(srun_command(allocation, command), env=env)

    def poll(self) -> int | None:
        if self._asked is not None and time.monotonic() - self._asked[1] >= _SLURM_ASKS_S:
            self._pass_on(self._asked[0])
            self._asked = None
        return self._srun.poll()

    def signal(self, number: Signals) -> None:
        """Pass the signal on, a moment later: Slurm signals the nodes too when it ends a job, and once is enough."""
        self._asked = (number, time.monotonic())

    def _pass_on(self, number: Signals) -> None:
        """By scancel, to every process of the job's steps: a SIGTERM to srun itself would kill the step at once."""
        if any((read_json(path) or {}).get("asked") for path in self._node_files):
            return
        with contextlib.suppress(LaunchError):
            ask(("scancel", f"--signal={number.name.removeprefix('SIG')}", self._job_id), timeout_s=30)

    def killed_nodes(self) -> tuple[str, ...]:
        return ()


class LocalStep:
    """One supervisor for each pretended node on this machine. As under srun, one that fails ends the others."""

    def __init__(
        self, command: tuple[str, ...], allocation: Allocation, *, shutdown_timeout_s: int, env: Mapping[str, str]
    ) -> None:
        self._patience_s = shutdown_timeout_s + _SUPERVISOR_ENDS_S
        self._kill_at: float | None = None
        self._first_failure = 0
        self._killed: list[str] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {
            name: start_child((*command, f"--node-rank={rank}"), env=env, at_parents_death=SIGTERM)
            for rank, name in enumerate(allocation.node_names)
        }

    def poll(self) -> int | None:
        for name, process in list(self._running.items()):
            if (code := process.poll()) is not None:
                del self._running[name]
                self._note_end(name, code)
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._send(SIGKILL)
        return None if self._running else self._first_failure

    def signal(self, number: Signals) -> None:
        self._send(number)

    def killed_nodes(self) -> tuple[str, ...]:
        return tuple(self._killed)

    def _note_end(self, name: str, code: int) -> None:
        if code == 0 or self._first_failure:
            return
        self._first_failure = code
        if code < 0:
            self._killed.append(name)
        self._send(SIGTERM)
        self._kill_at = time.monotonic() + self._patience_s

    def _send(self, number: Signals) -> None:
        for process in self._running.values():
            process.send_signal(number)
