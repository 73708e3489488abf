"""What the machine at hand is, asked of the kernel alone. Standard library only; login side and driver use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
VMSTAT = Path("/proc/vmstat")


def num_nvidia_gpus() -> int:
    """GPUs that a loaded NVIDIA driver shows; 0 without a driver."""
    try:
        return len(list(NVIDIA_GPUS.iterdir()))
    except OSError:
        return 0


def detect_accelerator(declared: Literal["cuda", "cpu", "auto"]) -> Literal["cuda", "cpu"]:
    """The accelerator a profile means here: `auto` is cuda where a driver shows a GPU, else cpu."""
    if declared == "auto":
        return "cuda" if num_nvidia_gpus() else "cpu"
    return declared


def num_usable_cpus() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0))


def num_oom_kills() -> int:
    """Processes that this machine's kernel has killed for want of memory since boot, in whichever job; 0 if unknown.

    Source: oom_kill in /proc/vmstat (Linux 4.13); it counts those of cgroups too.
    """
    try:
        lines = VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def process_state(pid: int) -> str | None:
    """One letter for what process `pid` is at, such as T for stopped; None for one that is gone, or a zombie.

    Source: proc(5), field 3 of /proc/PID/stat.
    """
    after_name = _stat(pid)
    return after_name[0] if after_name and after_name[0] != "Z" else None


def process_start_time(pid: int) -> int | None:
    """Kernel ticks since boot at which `pid` started, so that a pid that was used again is told apart; None if gone.

    Source: proc(5), field 22 of /proc/PID/stat. A zombie is gone.
    """
    after_name = _stat(pid)
    return int(after_name[19]) if after_name and after_name[0] != "Z" else None


def _stat(pid: int) -> list[str]:
    """The fields from the third on; the second may hold spaces and parentheses. Empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
