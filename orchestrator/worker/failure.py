"""How a rank says why it failed: one line for people and the driver, the trace-back for whoever wrote the code."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.files import write_json
from orchestrator.out_of_memory import OUT_OF_MEMORY, says_out_of_memory

_PEER_SIGNS = ("closed by peer", "reset by peer", "broken pipe", "remote process exited", "socket timeout")


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

    Whatever runs out of memory is `OutOfMemory`.
    """
    if ran_out_of_memory(error):
        return OUT_OF_MEMORY
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(sign in text for sign in _PEER_SIGNS):
        return "PeerLost"
    return type(error).__name__


def write_failure(path: Path, error: BaseException, *, rank: int, user_folder: Path | None) -> str:
    """Write `error-<rank>.json`, and return its one-line message."""
    kind = kind_of(error)
    message = one_line(error, user_folder)
    if kind == "PeerLost":
        message = f"another rank ended first ({message})"
    details = "".join(traceback.format_exception(error))
    told = {"rank": rank, "type": kind, "message": message, "traceback": details, "time": time.time()}
    write_json(path, told | getattr(error, "facts", {}))
    return message
