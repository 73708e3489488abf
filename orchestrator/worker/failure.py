"""How a rank says why it failed: one line for people and the driver, the trace-back for whoever wrote the code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from orchestrator.errors import NoRoom, OrchestratorError, Problem
from orchestrator.failure_kinds import LOADER_KILLED, PEER_LOST
from orchestrator.files import FULL, write_json
from orchestrator.out_of_memory import OUT_OF_MEMORY, says_out_of_memory
from orchestrator.talk import warn

_STEP = "_orchestrate_step"
_PEER_SIGNS = ("closed by peer", "reset by peer", "broken pipe", "remote process exited", "socket timeout")
_LOADER_KILLED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) "
    r"(?:is killed by signal: (?:Killed|Bus error|Terminated)|exited unexpectedly(?! with exit code))"
)
"""torch's words for a loader process that somebody else has ended, most often the kernel; one that ends itself, or
that a fault of its own ends, says so otherwise. Source: torch/csrc/DataLoader.cpp and dataloader.py."""


def one_line(error: BaseException, user_folder: Path | None = None) -> str:
    """`error` in one line; with `user_folder`, the last place in it that the error came through stands in front.

    Our own errors say where and what themselves. An error from a loader process carries a whole trace-back as its
    text (torch re-raises it so): its last line is the error.
    """
    if isinstance(error, OrchestratorError):
        return "; ".join(map(_problem_in_one_line, error.problems))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if "Original Traceback" in str(error):
        told = lines[-1]
    else:
        told = f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__
    return f"{place}: {told}" if (place := user_place(error, user_folder)) else told


def _problem_in_one_line(problem: Problem) -> str:
    what = f"{problem.where}: {problem.what}"
    return f"{what} ({problem.fix})" if problem.fix else what


def user_place(error: BaseException, user_folder: Path | None) -> str:
    """`model.py:17`, the innermost place in the user's folder that `error` came through; '' for none."""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(Path(error.filename), error.lineno)]
    else:
        places = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    for path, line in reversed(places):
        if user_folder is not None and path.is_relative_to(user_folder):
            return f"{path.relative_to(user_folder)}:{line}"
    return ""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on a GPU, in torch's allocator on a CPU, in CUDA's libraries, or in Python."""
    if type(error).__name__ in (OUT_OF_MEMORY, "OutOfMemoryError") or isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(str(error))


def kind_of(error: BaseException) -> str:
    """The error's class name; `PeerLost` when this rank only noticed that another one was gone.

    Whatever runs out of memory is `OutOfMemory`, and whatever finds a disk full is `NoRoom`; `LoaderKilled` is said of
    a rank one of whose loader processes was killed.
    """
    if ran_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in FULL:
        return NoRoom.__name__
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(sign in text for sign in _PEER_SIGNS):
        return PEER_LOST
    if killed_loaders(error):
        return LOADER_KILLED
    return type(error).__name__


def killed_loaders(error: BaseException) -> tuple[int, ...]:
    """The pids of loader processes that were killed, as `error` says; () for any other error."""
    found = _LOADER_KILLED.search(str(error)) if isinstance(error, RuntimeError) else None
    return tuple(int(pid) for pid in found["pids"].split(",")) if found else ()


def at_step(error: BaseException, step: int) -> None:
    """Keep with `error` the step that this rank was at."""
    setattr(error, _STEP, step)


def write_failure(path: Path, error: BaseException, *, rank: int, user_folder: Path | None) -> str:
    """Write `error-<rank>.json`, and return its one-line message."""
    kind = kind_of(error)
    message = one_line(error, user_folder)
    if kind == PEER_LOST:
        message = f"another rank ended first ({message})"
    if kind == LOADER_KILLED:
        message = f"a loader process was killed ({message})"
    details = "".join(traceback.format_exception(error))
    told = {"rank": rank, "type": kind, "message": message, "traceback": details, "time": time.time()}
    try:
        write_json(path, told | {"step": getattr(error, _STEP, None)} | getattr(error, "facts", {}))
    except OSError as unwritten:
        warn(f"rank {rank}: {path} cannot be written: {unwritten.strerror}")
    return message


def end_failed(path: Path, error: BaseException, *, rank: int, user_folder: Path | None) -> NoReturn:
    """Tell `error`, write it to `path`, and end this process with status 1."""
    message = write_failure(path, error, rank=rank, user_folder=user_folder)
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error)
    warn(f"rank {rank}: {message}")
    end(1)


def end(exit_code: int) -> NoReturn:
    """End this process at once, its output written where there is room for it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)
