"""What memory is left to this process: by the machine, and by the cgroups that Slurm or a container put it in.

Standard library only. Source: proc(5), cgroups(7), the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

_V1_MOUNT = "memory"
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def free_memory_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """What may still be used before the kernel kills something: the least that the machine or any cgroup has left.

    Pages of files that the kernel would drop count as free. Raises OSError where the kernel does not tell.
    """
    return min((_sum_of_kib(proc / "meminfo", "MemAvailable"), *_left_in_cgroups(proc, cgroups)))


def anonymous_bytes() -> int:
    """What this process has in memory that no file holds, shared with forked ones or not. Raises OSError."""
    return _sum_of_kib(PROC / "self" / "status", "RssAnon")


def unshared_bytes(pid: int) -> int:
    """What process `pid` has in memory that it shares with no other; takes milliseconds. Raises OSError for none."""
    return _sum_of_kib(PROC / str(pid) / "smaps_rollup", "Private_Clean", "Private_Dirty")


def _sum_of_kib(path: Path, *names: str) -> int:
    """The numbers of kB that stand after each `name:`, summed, in bytes. For each reading the kernel counts anew."""
    found = [int(line.split()[1]) for line in path.read_text().splitlines() if line.partition(":")[0] in names]
    if len(found) != len(names):
        raise OSError(f"{path}: no {' or '.join(names)}")
    return 1024 * sum(found)


def _left_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """By each cgroup that this process is in, up to the root, and that has a limit."""
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            yield from _left_on_the_way(cgroups, group, *_V2)
        elif "memory" in controllers.split(","):
            yield from _left_on_the_way(cgroups / _V1_MOUNT, group, *_V1)


def _left_on_the_way(mount: Path, group: str, limit: str, usage: str, droppable: str) -> Iterator[int]:
    """A group that this mount does not show, as in a container, is looked for at its root."""
    folder = mount / group.lstrip("/")
    for each in (folder, *folder.parents):
        try:
            allowed, used = (each / limit).read_text().strip(), int((each / usage).read_text())
            if allowed != "max":
                yield max(0, int(allowed) - used + _droppable(each / "memory.stat", droppable))
        except OSError:
            pass
        if each == mount:
            return


def _droppable(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name} ")), 0)
