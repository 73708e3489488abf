"""The step of an attempt: one supervisor per node, by srun, or as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from signal import SIGKILL, SIGTERM, Signals
from typing import Protocol

from orchestrator.cluster import Allocation
from orchestrator.errors import LaunchError
from orchestrator.files import read_json
from orchestrator.job.commands import ask
from orchestrator.processes import start_child
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.talk import tell

_SUPERVISOR_ENDS_S = 15
"""Seconds a supervisor may need after torchrun's own time-out."""
_SLURM_ASKS_S = 0.5
_ASKS_AGAIN_S = 5
_SCANCEL_ENDS_S = 30
_SRUN_ENDS_S = 15
_LOOK_S = 0.1
_NODE_FAILURE = re.compile(r"srun: error: Node failure on (\S+)")
_TASKS_ENDED = re.compile(r"srun: error: \S+: tasks? ([\d,-]+): ")
"""As in `srun: error: node[1,3]: tasks 0,2: Killed`; one that ends well is not told."""


class Step(Protocol):
    """Supervisors on all nodes, running. Its end is the attempt's end."""

    def poll(self) -> int | None:
        """The exit code of the first supervisor that failed, else 0; None while one runs. Negative for a signal."""

    def signal(self, number: Signals) -> None:
        """Ask all ranks to save and end."""

    def kill(self, *, without: Collection[str] = ()) -> None:
        """End everything at once, without a save. Nobody waits for the end of these nodes, which may never be told."""

    def killed_nodes(self) -> tuple[str, ...]:
        """Nodes whose supervisor is known to have been killed by somebody else."""

    def failed_nodes(self) -> tuple[str, ...]:
        """Nodes that the scheduler has told to have failed."""


def supervisor_command(run: RunDir, attempt: AttemptDir) -> tuple[str, ...]:
    """The supervisor of one node; under srun it learns from Slurm which node it is on."""
    return (sys.executable, "-m", "orchestrator.node", str(run.path), str(attempt.number))


def srun_command(allocation: Allocation, command: tuple[str, ...]) -> tuple[str, ...]:
    """One task per node. One supervisor's failure ends the others, which might wait for it for ever.

    --cpus-per-task is repeated because srun does not inherit it from sbatch (Slurm 22.05 to 23.02). A lost node ends
    only its own task, so that the other supervisors live on when it is the first one; and the step of an attempt does
    not wait for the end of the one before it, which a node that nobody reaches may keep from ending.
    """
    cpus = () if allocation.cpus_per_node is None else (f"--cpus-per-task={allocation.cpus_per_node}",)
    return (
        "srun",
        f"--nodes={allocation.num_nodes}",
        f"--ntasks={allocation.num_nodes}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(allocation.node_names)}",
        "--kill-on-bad-exit=1",
        "--no-kill",
        "--overlap",
        *cpus,
        *command,
    )


def _num_tasks(ranges: str) -> int:
    """How many tasks `0,2-4` are."""
    ends = (part.partition("-") for part in ranges.split(",") if part)
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


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
        self._failed_nodes: list[str] = []
        self._num_ended = 0
        self._log = attempt.srun_log.open("w+b")
        self._srun = start_child(srun_command(allocation, command), env=env, output=self._log)
        self._reader = attempt.srun_log.open(errors="replace")

    def poll(self) -> int | None:
        """The end is asked for first, so that all srun has said is read by then."""
        exit_code = self._srun.poll()
        with contextlib.suppress(OSError):
            if told := self._reader.read():
                self._failed_nodes += _NODE_FAILURE.findall(told)
                self._num_ended += sum(map(_num_tasks, _TASKS_ENDED.findall(told)))
                tell(told.rstrip("\n"))
        if self._asked is not None and time.monotonic() >= self._asked[1] and self._pass_on(self._asked[0]):
            self._asked = None
        return exit_code

    def signal(self, number: Signals) -> None:
        """Pass the signal on, a moment later: Slurm signals the nodes too when it ends a job, and once is enough."""
        self._asked = (number, time.monotonic() + _SLURM_ASKS_S)

    def _pass_on(self, number: Signals) -> bool:
        """By scancel, to every process of the job's steps: a SIGTERM to srun itself would kill the step at once.

        False where it could not be done, and is to be tried again.
        """
        try:
            if not any((read_json(path) or {}).get("asked") for path in self._node_files):
                ask(("scancel", f"--signal={number.name.removeprefix('SIG')}", self._job_id), timeout_s=30)
            return True
        except (LaunchError, OSError, ValueError):
            self._asked = (number, time.monotonic() + _ASKS_AGAIN_S)
            return False

    def kill(self, *, without: Collection[str] = ()) -> None:
        """By scancel, on every node; srun ends with its last task, or at our hand if Slurm does not answer.

        By the number of the step: a SIGKILL for the whole job would be its end. srun itself would wait for nodes that
        do not answer until Slurm gives them up.
        """
        killing, num_reached = self._start_to_kill(), len(self._node_files) - len(without)
        give_up_at = time.monotonic() + _SCANCEL_ENDS_S + _SRUN_ENDS_S
        while self.poll() is None and time.monotonic() < give_up_at:
            if without and self._num_ended >= num_reached:
                break
            if killing is None or killing.poll() is not None:
                give_up_at = min(give_up_at, time.monotonic() + _SRUN_ENDS_S)
            time.sleep(_LOOK_S)
        for process in (self._srun, killing):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def _start_to_kill(self) -> subprocess.Popen[bytes] | None:
        """scancel talks to each node itself, and would wait some seconds for one that does not answer."""
        try:
            steps = ask(("squeue", "--steps", f"--jobs={self._job_id}", "--noheader", "--format=%i"), timeout_s=30)
        except LaunchError:
            return None
        numbered = [step for step in steps.split() if step.rpartition(".")[2].isdigit()]
        return start_child(("scancel", "--signal=KILL", *numbered), env=os.environ) if numbered else None

    def killed_nodes(self) -> tuple[str, ...]:
        return ()

    def failed_nodes(self) -> tuple[str, ...]:
        return tuple(self._failed_nodes)


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

    def kill(self, *, without: Collection[str] = ()) -> None:
        self._send(SIGKILL)

    def killed_nodes(self) -> tuple[str, ...]:
        return tuple(self._killed)

    def failed_nodes(self) -> tuple[str, ...]:
        return ()

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
