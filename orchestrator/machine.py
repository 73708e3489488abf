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


def process_start_time(pid: int) -> int | None:
    """Kernel ticks since boot at which `pid` started, so that a pid that was used again is told apart; None if gone.

    Source: proc(5), field 22 of /proc/PID/stat; the second field may hold spaces and parentheses. A zombie is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] == "Z" else int(after_name[19])
