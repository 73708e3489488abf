"""Ranks that are forked from a process which has loaded torch: they begin in a moment, not after seconds of imports.

`python -m tests.support.nursery` is that process: it reads a JSON object a line, and answers each with one.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[2]
_POLLED_EVERY_S = 0.01


class ForkedRank:
    """A rank at work: as much of `subprocess.Popen` as worlds need."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, -N for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired(f"rank {self.pid}", timeout)
            time.sleep(_POLLED_EVERY_S)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing for one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that all ranks are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-m", __name__),
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, run: Path, attempt: int, env: Mapping[str, str], log: Path) -> ForkedRank:
        """What `python -m orchestrator.worker RUN ATTEMPT` does with this environment, its output in `log`."""
        pid = self.ask(argv=[str(run), str(attempt)], env=dict(env), log=str(log))
        assert pid is not None
        return ForkedRank(self, pid)

    def ask(self, **request: Any) -> int | None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        print(json.dumps(request), file=stdin, flush=True)
        line = stdout.readline()
        assert line, "the process that ranks are forked from has died"
        answer: int | None = json.loads(line)
        return answer

    def close(self) -> None:
        """Ranks that are still there stay."""
        self._process.communicate()


@cache
def nursery() -> Nursery:
    """The one of this process; it ends with it."""
    made = Nursery()
    atexit.register(made.close)
    return made


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Until there are no more requests."""
    for line in requests:
        request = json.loads(line)
        answer = _code_of(request["poll"]) if "poll" in request else _fork(request)
        print(json.dumps(answer), file=answers, flush=True)


def _code_of(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _fork(request: Mapping[str, Any]) -> int:
    """A rank in a session of its own; returns its process id once it has one."""
    began, begins = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(began)
        _become_rank(request, begins)
    os.close(begins)
    os.read(began, 1)
    os.close(began)
    return pid


def _become_rank(request: Mapping[str, Any], begins: int) -> NoReturn:
    """What exec would have given anew is made so: session, files, environment, and draws that nobody seeds."""
    import numpy as np

    from orchestrator.worker.__main__ import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["orchestrator.worker", *request["argv"]]
    random.seed()
    np.random.seed()
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for one in (nothing, log, begins):
        os.close(one)
    main(*request["argv"])
    raise AssertionError("a rank ends its process itself")


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401  # an optimizer loads it

    import orchestrator.worker.train  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks ends it, by closing its input
    _serve(sys.stdin, sys.stdout)
