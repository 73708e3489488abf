"""`python -m orchestrator.submit.doctor.probe place PATH | gpus`: what may hang, asked in a process that can be left.

One JSON object on stdout. Standard library (and NVML) alone: a file system that does not answer, or a driver that is
stuck, holds up this process and nobody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any


def mount_of(path: str, mounts: str) -> tuple[str, str]:
    """(file system type, mount point) of an absolute path, by the text of /proc/self/mounts; of equals the last."""
    found = ("unknown", "/")
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[1])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[1]):
            found = (words[2], point)
    return found


def place(path: str) -> dict[str, Any]:
    """The folder nearest to `path` that exists: its file system, room, and whether files can be made, locked, renamed.

    `begins` is how `path` begins, in hex, where it is a file already. `error` is one line for what cannot be done
    there; `skew_s` how far the clock that stamps its files is ahead.
    """
    folder = Path(os.path.realpath(path))
    while not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder above may not be looked into
        folder = folder.parent
    kind, point = mount_of(str(folder), Path("/proc/self/mounts").read_text())
    room = os.statvfs(folder)
    facts = {
        "folder": str(folder),
        "type": kind,
        "mount": point,
        "free_bytes": room.f_bavail * room.f_frsize,
        "free_inodes": room.f_favail if room.f_files else None,
        "begins": _beginning(Path(path)),
    }
    return {**facts, **_tried(folder, Path(path))}


def _beginning(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(16).hex() if path.is_file() else None
    except OSError:
        return None


def _tried(folder: Path, wanted: Path) -> dict[str, Any]:
    first, second = (folder / f".orchestrate-probe.{secrets.token_hex(4)}" for _ in range(2))
    doing = "made"
    try:
        if wanted.is_file() and not os.access(wanted, os.W_OK):
            return {"error": f"{wanted.name} is not writable"}
        before = time.time()
        second.touch(0o600, exist_ok=False)
        with first.open("xb") as file:
            skew_s = skew_of(os.fstat(file.fileno()).st_mtime, before, time.time())
            doing = "locked"
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            doing = "renamed over another"
            first.replace(second)
        if first.exists() or not second.exists():
            return {"error": "a file that was renamed over another is still there"}
        return {"error": None, "skew_s": skew_s}
    except OSError as error:
        return {"error": f"a file cannot be {doing}: {error.strerror}"}
    finally:
        for file_made in (first, second):
            with contextlib.suppress(OSError):
                file_made.unlink()


def skew_of(stamp: float, before: float, after: float) -> float:
    """How far a stamp, given between two looks at this machine's clock, is outside of them, in seconds; 0 inside."""
    return min(0.0, stamp - before) or max(0.0, stamp - after)


def gpus() -> dict[str, Any]:
    """{driver, cuda (the newest it runs, such as '12.4'), gpus: [name, ...]}, or {error}, by NVML."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()
        names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
        version = pynvml.nvmlSystemGetDriverVersion()
        return {"driver": version, "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}", "gpus": names}
    except pynvml.NVMLError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    answer = gpus() if sys.argv[1] == "gpus" else place(sys.argv[2])
    sys.stdout.write(json.dumps(answer))
