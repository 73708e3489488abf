"""Whose the processes on a GPU are: this job's, somebody else's, or unknown. Standard library only, and never a guess.

This job's are its root on this machine (what started the supervisor: the driver, or Slurm's step), all that descend
from it, and all in the cgroup of its Slurm job. Who lost a parent was given to an ancestor of that one, or to init: so
nothing of this job's is, or is below, a process that is older than the root and no ancestor of it.
Source: proc(5), cgroups(7), pid_namespaces(7), PR_SET_CHILD_SUBREAPER in prctl(2).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

PROC = Path("/proc")

_FIRST_NAMESPACE = "pid:[4026531836]"
"""A driver counts processes as this one does. Source: PROC_PID_INIT_INO in the kernel's proc_ns.h."""
_INIT = 1
_SLURM_JOB = re.compile(r"slurm[^:\n]*/job_(\d+)(?:/|$)", re.MULTILINE)
"""In a path such as /slurm/uid_1000/job_5/step_0 (v1) or /system.slice/slurmstepd.scope/job_5/step_0 (v2)."""
_FOR_ANYBODY = "nvidia-cuda-mps"
"""MPS's server computes for other processes, this job's perhaps. The kernel cuts names to 15 signs."""


@dataclass(frozen=True)
class _Process:
    name: str
    parent: int
    started: int
    """In kernel ticks since boot."""


@dataclass(frozen=True)
class OwnJob:
    """What tells this job's processes on this machine."""

    proc: Path
    root: int
    began: int
    """When the root started, in kernel ticks since boot."""
    above: frozenset[int]
    """The root's ancestors."""
    slurm_job: str | None
    """As its cgroup names it; None where none does."""
    user: str

    @classmethod
    def here(cls, proc: Path = PROC) -> OwnJob | None:
        """The job of the supervisor that this process is; None where processes have other numbers than the driver
        knows them by, as in a container, or where what started it has ended."""
        with contextlib.suppress(OSError, ValueError):
            own = int((proc / "self").readlink().name)
            root = _process(proc, own).parent
            if root > _INIT and str((proc / "self" / "ns" / "pid").readlink()) == _FIRST_NAMESPACE:
                above = frozenset(_above(proc, root))
                return cls(proc, root, _process(proc, root).started, above, _slurm_job(proc, own), _user(proc, own))
        return None


@dataclass(frozen=True)
class Look:
    """One look at the machine's processes: what was read of one is not read again."""

    job: OwnJob
    _seen: dict[int, _Process] = field(default_factory=dict)

    def num_others(self, pids: Collection[int]) -> int | None:
        """How many of the processes on a GPU are somebody else's, at least; None where that is unknown.

        So it is where none is this job's: it does not compute there, or the driver has other numbers for processes.
        """
        found = [self._is_others(pid) for pid in set(pids)]
        is_known = True in found or None not in found
        return found.count(True) if False in found and is_known else None

    def _is_others(self, pid: int) -> bool | None:
        """None where nothing proves it either way; so it is of a process that /proc does not show."""
        job = self.job
        try:
            chain = list(self._upward(pid))
            if job.root in chain:
                return False
            if self._process(pid).name == _FOR_ANYBODY:
                return None
            if job.slurm_job is not None:
                return _slurm_job(job.proc, pid) != job.slurm_job
            below = takewhile(lambda each: each > _INIT and each not in job.above, chain)
            is_older = any(self._process(each).started < job.began for each in below)
            return True if is_older or _user(job.proc, pid) != job.user else None
        except (OSError, ValueError):
            return None

    def _upward(self, pid: int) -> Iterator[int]:
        """The process and its ancestors; up to the job's root, if that is one."""
        while pid > 0:
            yield pid
            pid = 0 if pid == self.job.root else self._process(pid).parent

    def _process(self, pid: int) -> _Process:
        if pid not in self._seen:
            self._seen[pid] = _process(self.job.proc, pid)
        return self._seen[pid]


def _process(proc: Path, pid: int) -> _Process:
    """Raises OSError for one that is gone or hidden."""
    before, _, after = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")
    fields = after.split()
    return _Process(before.partition("(")[2], int(fields[1]), int(fields[19]))


def _above(proc: Path, pid: int) -> Iterator[int]:
    while (pid := _process(proc, pid).parent) > 0:
        yield pid


def _slurm_job(proc: Path, pid: int) -> str | None:
    found = _SLURM_JOB.search((proc / str(pid) / "cgroup").read_text())
    return None if found is None else found[1]


def _user(proc: Path, pid: int) -> str:
    """The number of the real user. The owner of the folder would be root's where a process may not be dumped."""
    lines = (proc / str(pid) / "status").read_text().splitlines()
    return next((line.split()[1] for line in lines if line.startswith("Uid:")), "")
