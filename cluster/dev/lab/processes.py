"""The lab's processes: started with a record, found again by it, and ended without ever guessing by name.

A process is known by its pid together with its start time, so that a pid that was given out again is never mistaken
for it. What has no record is caught by marks that only this lab's processes bear: the daemons and their children have
``ORCHESTRATE_LAB_STATE`` in their environment; a job's processes have this lab's ``SLURM_CONF`` and a
``SLURMD_NODENAME``; and slurmstepd, which overwrites its environment, has one of this lab's logs open.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.commands import search_path
from lab.errors import CommandError, LabError
from lab.layout import Lab

_MARK = "ORCHESTRATE_LAB_STATE"


@dataclass(frozen=True)
class Process:
    """A process of this boot: ``start_ticks`` is field 22 of its ``/proc/PID/stat``."""

    pid: int
    start_ticks: int
    boot_id: str


def find_process(pid: int) -> Process | None:
    """The process that has this pid now, or None if there is none or it is only waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Process(pid=pid, start_ticks=int(fields[19]), boot_id=boot_id)


def is_alive(process: Process) -> bool:
    return find_process(process.pid) == process


def start(lab: Lab, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Process:
    """Start a daemon in a session of its own, its output in ``log/NAME.log``, and record it at once."""
    daemon_env = {"PATH": search_path(os.environ), "LC_ALL": "C", **mark(lab), **(env or {})}
    try:
        with log_file(lab, name).open("ab") as log:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon_env, cwd="/", start_new_session=True
            )
    except OSError as error:
        raise CommandError(f"`{argv[0]}` cannot be started: {error.strerror}") from None
    process = find_process(child.pid)
    if process is None:
        raise died(lab, name)
    _record_file(lab, name).write_text(json.dumps(asdict(process)) + "\n")
    return process


def mark(lab: Lab) -> dict[str, str]:
    """The environment variable by which ``marked`` knows this lab's daemons and their children."""
    return {_MARK: str(lab.state)}


def log_file(lab: Lab, name: str) -> Path:
    return lab.logs / f"{name}.log"


def died(lab: Lab, name: str) -> LabError:
    """The error for a daemon that ended: its log and the last line in it."""
    log = log_file(lab, name)
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return LabError(f"{name} ended by itself: {lines[-1] if lines else 'it said nothing'} (see {log})")


def recorded(lab: Lab) -> dict[str, Process]:
    """Every daemon that was started, by name, dead or alive; half-written records are passed over."""
    found = {}
    for file in sorted((lab.state / "processes").glob("*.json")):
        try:
            found[file.stem] = Process(**json.loads(file.read_text()))
        except (ValueError, TypeError):
            continue
    return found


def _record_file(lab: Lab, name: str) -> Path:
    return lab.state / "processes" / f"{name}.json"


def marked(lab: Lab) -> list[int]:
    """The pids of this lab's daemons, of their children and of its jobs' processes, by the marks they bear."""
    return [pid for pid in all_pids() if _is_in_environment(lab, pid) or _is_step_daemon(lab, pid)]


def _is_in_environment(lab: Lab, pid: int) -> bool:
    environment = _environment(pid)
    in_job = f"SLURM_CONF={lab.slurm_conf}".encode() in environment and any(
        entry.startswith(b"SLURMD_NODENAME=") for entry in environment
    )
    return in_job or f"{_MARK}={lab.state}".encode() in environment


def _is_step_daemon(lab: Lab, pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        is_slurmstepd = (process / "exe").readlink().name.startswith("slurmstepd")  # Debian: slurmstepd-wlm
        return is_slurmstepd and any(fd.readlink().parent == lab.logs for fd in (process / "fd").iterdir())
    except OSError:
        return False


def all_pids() -> list[int]:
    """The pid of every process on this machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def end_all(find: Callable[[], Iterable[Process]], *, timeout_s: float = 10) -> None:
    """SIGKILL what ``find`` finds, until it finds nothing: what was forked meanwhile is found in the next round."""
    deadline = time.monotonic() + timeout_s
    while remaining := list(find()):
        if time.monotonic() > deadline:
            raise LabError(f"processes that do not end: {', '.join(str(process.pid) for process in remaining)}")
        for process in remaining:
            _kill(process)
        time.sleep(0.02)


def _kill(process: Process) -> None:
    """SIGKILL through a pidfd that was checked, so that a pid given out again in between is not hit."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
