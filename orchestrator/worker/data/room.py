"""What a rank's loader processes may still take, as the machine tells it."""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path

from orchestrator.free_memory import anonymous_bytes, free_memory_bytes, unshared_bytes
from orchestrator.tuning.loader_room import Room
from orchestrator.worker.data.lanes import LiveBatches

SHARED = Path("/dev/shm")


def room_of(batches: LiveBatches, *, num_ranks: int) -> Room:
    """The room of one of `num_ranks` ranks on this machine. Takes some milliseconds."""
    memory_bytes = shared_bytes = math.inf
    unshared = 0
    with contextlib.suppress(OSError, ValueError):
        memory_bytes = free_memory_bytes() / num_ranks
    with contextlib.suppress(OSError):
        shared_bytes = shutil.disk_usage(SHARED).free / num_ranks
    with contextlib.suppress(OSError, ValueError):
        unshared = max(map(unshared_bytes, batches.pids[:1]), default=0)
    return Room(
        memory_bytes,
        shared_bytes,
        float(unshared or _of_this_rank()),
        batch_bytes=float(batches.batch_bytes),
        prefetch=batches.prefetch,
        has_workers=unshared > 0,
    )


def _of_this_rank() -> int:
    """What a process may take at the most that shares all that this rank has, and touches it."""
    with contextlib.suppress(OSError, ValueError):
        return anonymous_bytes()
    return 0
