"""The forwarder beside the run: started, started again when it dies, given time to drain. It never stops a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from orchestrator.files import PRIVATE_FILE, make_private_dir, read_json
from orchestrator.processes import start_child
from orchestrator.run_dir import RunDir
from orchestrator.talk import tell

DRAIN_S = 30.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_ENDS_S = 5.0
_BUSY = 3
"""Its exit code when another forwarder is at work on the run."""


def forwarder_command(run: RunDir) -> tuple[str, ...]:
    """The process that replays this run's journal into MLflow as it grows."""
    return (sys.executable, "-m", "orchestrator.tracking.forward", str(run.path), "--follow")


class Forwarder:
    """The forwarder as our child; alone among our children it gets MLflow's credentials."""

    def __init__(self, run: RunDir, command: Sequence[str]) -> None:
        self._run, self._command = run, tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._pause_s = _FIRST_PAUSE_S

    def keep_running(self) -> None:
        """Start it when it does not run: at once, then after 1, 2, 4, ... at most 60 seconds.

        One that gave way to another forwarder, as that of `submit` may still be at work, tries again every second.
        """
        runs = self._process is not None and self._process.poll() is None
        if runs or time.monotonic() < self._start_at:
            return
        died = self._exit_code() not in (None, _BUSY)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S) if died else _FIRST_PAUSE_S
        self._start_at = time.monotonic() + self._pause_s
        try:
            env = {**os.environ, **(read_json(self._run.environment) or {})}
            make_private_dir(self._run.forward)
            with open(self._run.forward / "forward.log", "ab", opener=_private) as log:
                self._process = start_child(self._command, env=env, output=log, at_parents_death=signal.SIGTERM)
        except (OSError, ValueError) as error:
            tell(f"driver: the forwarder cannot be started: {error}")

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """After the verdict: wait until the forwarder has sent everything and ended, which it then does by itself.

        False when that takes longer than `timeout_s`; then it is ended.
        """
        deadline = time.monotonic() + timeout_s
        self.keep_running()
        while self._exit_code() != 0:
            if time.monotonic() > deadline:
                self._end()
                return False
            self.keep_running()
            time.sleep(0.1)
        return True

    def _exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)
