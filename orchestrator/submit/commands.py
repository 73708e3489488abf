"""The only place on the login side that runs other programs: lists of words, a time-out, one-line errors."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import Problem, SubmissionError

Say = Callable[[str], None]
"""Hears a line of talk."""


def silent(line: str) -> None:
    """Hear it, and say nothing."""


class NoAnswer(SubmissionError):
    """Who was asked could not be reached, or the answer was lost; `may_have_arrived`: what was asked may be done."""

    def __init__(self, problem: Problem, *, may_have_arrived: bool) -> None:
        super().__init__(problem)
        self.may_have_arrived = may_have_arrived


def run_command(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run `argv`, let it read `text`, and return its output, whatever its exit code.

    Raises SubmissionError when there is no such program, and NoAnswer when it does not answer in `timeout_s`.
    """
    try:
        return subprocess.run(
            argv,
            env=env,
            cwd=cwd,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise SubmissionError(missing_program(argv[0])) from None
    except subprocess.TimeoutExpired:
        what = f"no answer within {timeout_s:g} s"
        problem = Problem(argv[0], what, "is the controller up? try again in a minute")
        raise NoAnswer(problem, may_have_arrived=True) from None


def watch_command(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    silence_s: float = math.inf,
    hears_all: bool = False,
) -> int | None:
    """Run `argv`, hand on each line of its stderr as it comes (`hears_all`: its stdout too), and return its exit code.

    None: it took more than `timeout_s` in all, or `silence_s` without a line.
    It runs in a session of its own, and all of it is killed at the time-out and when this process is interrupted.
    """
    process = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if hears_all else subprocess.DEVNULL,
        stderr=subprocess.STDOUT if hears_all else subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def give_up() -> None:
        late.set()
        _kill_session(process.pid)

    stop_at = time.monotonic() + timeout_s

    def armed() -> threading.Timer:
        timer = threading.Timer(min(silence_s, stop_at - time.monotonic()), give_up)
        timer.start()
        return timer

    timer = armed()
    with process:
        heard = process.stdout if hears_all else process.stderr
        assert heard is not None, "it was piped"
        try:
            for line in heard:
                timer.cancel()
                timer = armed()
                on_line(line.rstrip("\n"))
        except BaseException:
            _kill_session(process.pid)
            raise
        finally:
            timer.cancel()
            code = process.wait()
    return None if late.is_set() else code


def _kill_session(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def start_detached(argv: Sequence[str], *, log: Path, env: Mapping[str, str]) -> int:
    """Start `argv` in a session of its own, output appended to `log` (0600), and return its pid at once."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, start_new_session=True, close_fds=True
        )
    finally:
        os.close(fd)
    process.returncode = 0  # it outlives us on purpose: no ResourceWarning, no zombie reaping by this object
    return process.pid


def wait_for(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> int | None:
    """Run `argv` in a session of its own, its output thrown away, and return its exit code.

    None: it is still at work after `timeout_s`, and ends by itself: what it does must not be broken off half-way.
    """
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(argv, env=env, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.returncode = 0  # it outlives us on purpose: no ResourceWarning, no zombie reaping by this object
        return None


def missing_program(name: str) -> Problem:
    """The one line for a program that is not on PATH."""
    return Problem(name, "not found on PATH", "load the cluster's module, or choose a profile whose scheduler is local")


def find_program(name: str) -> str | None:
    """The path of `name` on PATH, or None."""
    return shutil.which(name)


def last_line(text: str, otherwise: str) -> str:
    """The last line of what a program said, where its cause of death stands; `otherwise` when it said nothing."""
    return next(iter(text.strip().splitlines()[-1:]), otherwise)
