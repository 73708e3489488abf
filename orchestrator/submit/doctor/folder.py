"""The folder of runs, as the doctor looks at it: shared or local, writable, roomy, with a true clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.doctor.ask import ask_probe
from orchestrator.submit.doctor.finding import Finding, Patient, Status, clock_finding
from orchestrator.units import GIB

SHARED = frozenset(
    {
        *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "wekafs", "glusterfs", "fuse.glusterfs"),
        *("panfs", "pvfs2", "orangefs", "gfs2", "ocfs2", "cifs", "smb3", "afs", "9p", "virtiofs", "vastnfs"),
        *("fuse.sshfs", "fuse.juicefs", "fuse.quobyte", "fuse.daos", "fuse.beegfs"),
    }
)
_LITTLE_BYTES, _NO_BYTES = 20 * GIB, GIB
_FEW_INODES, _NO_INODES = 10_000, 100


def is_shared(file_system: str) -> bool:
    """Whether a file system of this type is one that several machines can mount."""
    return file_system in SHARED


def folder_findings(patient: Patient) -> Iterator[Finding]:
    """Four lines about the folder in which run directories are made."""
    facts = ask_probe("place", str(patient.folder / "runs"))
    yield from judged(facts, uses_slurm=patient.uses_slurm)


def cache_finding(patient: Patient) -> Iterator[Finding]:
    """Where the assets of recipes lie, for jobs on other machines."""
    if patient.uses_slurm:
        root = cache_at(None, patient.environment).root
        unseen = unshared(root)
        seen = f"{root}: {unseen}" if unseen else f"{root}: shared"
        fix = "export ORCHESTRATE_CACHE=DIR, a folder that every node of a job sees, and stage again"
        yield Finding("asset cache", "warning" if unseen else "ok", seen, fix if unseen else "")


def unshared(path: Path) -> str:
    """Why other nodes would not see what lies at `path`, as far as can be told; '' where they may."""
    facts = ask_probe("place", str(path))
    return "" if is_shared(facts["type"]) else f"on {facts['type']}, which looks local to this machine"


def judged(facts: dict[str, Any], *, uses_slurm: bool) -> Iterator[Finding]:
    """The lines for what the probe has found out."""
    folder = facts["folder"]
    if facts["error"]:
        fix = "submit from a folder in which you can write"
        yield Finding("run directory", "problem", f"{folder}: {facts['error']}", fix)
    elif facts.get("begins") is not None:
        what = f"{folder}/runs is a file, where a folder of runs is wanted"
        yield Finding("run directory", "problem", what, "move it away, or submit from another folder")
    else:
        yield Finding("run directory", "ok", f"{folder}: files can be made, locked, and renamed over others")
    where = f"{facts['type']}, mounted on {facts['mount']}"
    if is_shared(facts["type"]):
        yield Finding("file system", "ok", f"{where}: shared")
    elif uses_slurm:
        fix = "submit from a folder that every node of a job sees; if this one is, all is well"
        yield Finding("file system", "warning", f"{where}: looks local to this machine", fix)
    else:
        yield Finding("file system", "ok", f"{where}: local, as are the runs")
    yield _room(facts["free_bytes"], facts["free_inodes"])
    if facts.get("skew_s") is not None:
        yield clock_finding("clock of files", facts["skew_s"], "the clock that stamps files")


def _room(free_bytes: int, free_inodes: int | None) -> Finding:
    def below(least_bytes: int, least_inodes: int) -> bool:
        return free_bytes < least_bytes or (free_inodes is not None and free_inodes < least_inodes)

    inodes = "" if free_inodes is None else f", {free_inodes:,} more files"
    seen = f"{free_bytes / GIB:,.1f} GiB free{inodes}"
    if not below(_LITTLE_BYTES, _FEW_INODES):
        return Finding("free space", "ok", seen)
    status: Status = "problem" if below(_NO_BYTES, _NO_INODES) else "warning"
    return Finding("free space", status, seen, "delete old checkpoints, or submit from another folder")
