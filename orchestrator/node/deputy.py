"""Whether the driver is still there: when its node is lost, a supervisor puts the run back in the queue."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from orchestrator.files import read_json
from orchestrator.heartbeat import HEARTBEAT_S, SILENT_S, last_sign
from orchestrator.node.launch import NodeLaunch
from orchestrator.processes import start_child
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.talk import tell

_LATE_S = 2 * HEARTBEAT_S
_WAS_STOPPED_S = 10.0
_LOOK_S = 0.5
_TAKES_OVER_S = 900.0
"""Enough to ask for the successor, and then for this job's end, as long as each is tried."""
_ASKS_AT_RANK = 1
"""The supervisor that asks Slurm about the driver's node: one for all."""
_ASK_AGAIN_S = 1.0


class Deputy:
    """Watches the driver's heartbeat by this machine's own clock."""

    def __init__(
        self, run: RunDir, attempt: AttemptDir, launch: NodeLaunch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._attempt, self._silence_s, self._clock = run, attempt, launch.driver_silence_s, clock
        self._node_rank = launch.node_rank
        self._asking: subprocess.Popen[bytes] | None = None
        self._ask_at = 0.0
        self._has_heard = False
        """Whether Slurm has said that it gets no answer from the driver's node."""
        self._seen: bytes | None = None
        self._since = self._looked_at = clock()

    def driver_is_gone(self, *, is_idle: bool) -> bool:
        """Whether its heartbeat has stood still for longer than any node may be silent: never without a scheduler.

        Where nobody is at work here (`is_idle`) it is gone sooner, once Slurm gets no answer from its node either.
        """
        if self._silence_s is None:
            return False
        silent_s = self._silent_for_s()
        return silent_s >= self._silence_s or (is_idle and silent_s >= SILENT_S and self._is_unreached())

    def finds_driver_gone(self) -> bool:
        """The same for a supervisor that is about to end: where the heartbeat is late, wait until it is known."""
        while self._silence_s is not None and self._silent_for_s() >= _LATE_S:
            if self.driver_is_gone(is_idle=True):
                return True
            time.sleep(_LOOK_S)
        return False

    def _is_unreached(self) -> bool:
        """Whether Slurm says so. It is asked by a process of its own, which nobody waits for."""
        if self._node_rank != _ASKS_AT_RANK or self._has_heard:
            return self._has_heard
        if self._asking is None and self._clock() >= self._ask_at:
            self._asking = self._ask()
        if self._asking is not None and (exit_code := self._asking.poll()) is not None:
            self._asking, self._ask_at, self._has_heard = None, self._clock() + _ASK_AGAIN_S, exit_code == 0
        return self._has_heard

    def _ask(self) -> subprocess.Popen[bytes] | None:
        try:
            head = (read_json(self._attempt.driver) or {})["nodes"][0]
            return start_child((sys.executable, "-m", "orchestrator.job.unreached", head), env=os.environ)
        except (OSError, ValueError, LookupError):
            return None

    def take_over(self) -> None:
        """Put the run back in the queue and end this job; several supervisors may try, and one does it."""
        command = (sys.executable, "-m", "orchestrator.job.takeover", str(self._run.path), str(self._attempt.number))
        tell("supervisor: the driver is silent: taking over")
        try:
            subprocess.run(command, env=dict(os.environ), stdin=subprocess.DEVNULL, timeout=_TAKES_OVER_S, check=False)
        except subprocess.TimeoutExpired:
            tell(f"supervisor: given up after {_TAKES_OVER_S:g} s; `orchestrate resume` goes on with this run")

    def _silent_for_s(self) -> float:
        """One that has not looked for a while was stopped itself, by `scontrol suspend` say, as the driver was."""
        now, told = self._clock(), last_sign(self._attempt.driver)
        was_stopped = now - self._looked_at > _WAS_STOPPED_S
        self._looked_at = now
        if was_stopped or (told is not None and told != self._seen):
            self._seen, self._since = told, now
            self._forget_answer()
        return now - self._since

    def _forget_answer(self) -> None:
        """What Slurm said, or is about to say, was about a silence that is over."""
        if self._asking is not None:
            self._asking.kill()
            self._asking.wait()
        self._asking, self._has_heard = None, False
