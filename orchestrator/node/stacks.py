"""Where silent ranks stand: by py-spy, which looks from outside, else by the ranks themselves, at a signal.

Whatever hangs in the kernel may take a look from outside along; so each program is given some seconds and left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.files import PRIVATE_FILE
from orchestrator.processes import handles_signal
from orchestrator.pulse import STACK_SIGNAL

DUMP_S = 8.0
"""Seconds for the stacks of all ranks: fewer than a supervisor may be silent itself."""
_TOOL_S = 5.0
"""Of these, what py-spy may take."""
_LOOK_S = 0.05
_REAP_S = 0.5


@dataclass(frozen=True)
class Stuck:
    """A rank whose stack is wanted."""

    pid: int
    told: str
    """One line about it, for the head of the file."""
    own: Path
    """Where it writes its stacks itself."""
    file: Path
    """Where they shall stand in the end."""


def find_tool() -> str | None:
    """py-spy on PATH or beside this Python; None where there is none."""
    return shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))


def dump_stacks(stuck: Sequence[Stuck], *, tool: str | None) -> frozenset[int]:
    """Write the stacks of these processes into their files, DUMP_S at most; the pids of those that could be had.

    One that is stopped and has to write its own goes on for it: it is about to be ended.
    """
    began = time.monotonic()
    found = set(_seen_by(tool, stuck, until=began + _TOOL_S) if tool else ())
    rest = [one for one in stuck if one.pid not in found]
    return frozenset(found | set(_told_by_themselves(rest, until=began + DUMP_S)))


def _seen_by(tool: str, stuck: Iterable[Stuck], *, until: float) -> list[int]:
    looking = []
    for one in stuck:
        with contextlib.suppress(OSError), open(one.file, "wb", opener=_private) as file:
            file.write(f"{one.told}\n\n".encode())
            file.flush()
            command = (tool, "dump", "--nonblocking", "--pid", str(one.pid))
            looking.append((one, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)))
    return [one.pid for one, process in looking if _ended_well(process, until)]


def _ended_well(process: subprocess.Popen[bytes], until: float) -> bool:
    try:
        return process.wait(max(0.0, until - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REAP_S)
        return False


def _told_by_themselves(stuck: Sequence[Stuck], *, until: float) -> list[int]:
    asked = [one for one in stuck if handles_signal(one.pid, STACK_SIGNAL)]
    for number in (STACK_SIGNAL, signal.SIGCONT):
        for one in asked:
            with contextlib.suppress(OSError):
                os.kill(one.pid, number)
    sizes: dict[int, int] = {}
    while time.monotonic() < until:
        time.sleep(_LOOK_S)
        before, sizes = sizes, {one.pid: _size(one.own) for one in asked}
        if sizes == before and all(sizes.values()):
            break
    return [one.pid for one in asked if sizes.get(one.pid) and _keep(one)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _keep(one: Stuck) -> bool:
    try:
        with open(one.file, "wb", opener=_private) as file:
            file.write(f"{one.told}\n\n".encode() + one.own.read_bytes())
    except OSError:
        return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)
