"""What fetching costs the process that does it: on a core, waiting for one, and waiting for anything else."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

_SCHEDULE = "/proc/self/schedstat"
_LONGEST = 100


class FetchCost(NamedTuple):
    """Of one micro-batch, in seconds."""

    run_s: float
    """On a core."""
    queue_s: float
    """Able to run, and waiting for a core."""
    other_s: float
    """Waiting for a disk, a network, another thread."""


class FetchMeter:
    """A stop-watch for the main thread of whichever process fetches; forked ones have copies of it."""

    def __init__(self) -> None:
        self._began = (0, 0, 0)
        self._pid, self._file = 0, -1

    def begin(self) -> None:
        """A micro-batch is about to be fetched."""
        self._began = self._now_ns()

    def end(self) -> FetchCost:
        """It is there, collated."""
        wall, run, queue = ((after - before) / 1e9 for after, before in zip(self._now_ns(), self._began, strict=True))
        return FetchCost(run, queue, max(0.0, wall - run - queue))

    def _now_ns(self) -> tuple[int, int, int]:
        """Time; and how long this thread was on a core, and waited for one: 0 where the kernel keeps no count of that.

        Source: the second number of /proc/PID/schedstat, in the kernel's Documentation/scheduler/sched-stats.rst. The
        file is kept open: to open it takes longer than many an item.
        """
        try:
            if self._pid != os.getpid():
                self._pid, self._file = os.getpid(), os.open(_SCHEDULE, os.O_RDONLY | os.O_CLOEXEC)
            queue = int(os.pread(self._file, _LONGEST, 0).split()[1])
        except (OSError, ValueError, IndexError):
            queue = 0
        return time.perf_counter_ns(), time.thread_time_ns(), queue
