"""How many more loader processes there is room for, by memory and by shared memory. Pure; sizes in bytes.

While loaders hand over, there are the processes of both numbers: the new ones have to fit beside those that are there.
"""

from __future__ import annotations

from dataclasses import dataclass

_SHARE = 0.5
"""Of what is free: a process touches more of its memory later, and others want some too."""


@dataclass(frozen=True)
class Room:
    """What one rank may take beside what it has; infinite where the machine does not tell."""

    memory_bytes: float
    shared_bytes: float
    """In /dev/shm, where micro-batches lie on their way from a process to its rank."""
    worker_bytes: float
    """Of one loader process; at most, where there is none yet."""
    batch_bytes: float
    """Of one micro-batch."""
    prefetch: int
    """Micro-batches that a process has ready."""
    has_workers: bool
    """Whether `worker_bytes` was measured of a process."""

    def most_by_memory(self) -> float:
        """New processes that fit. With none to measure one may be tried: most take less than their rank does."""
        fit = _SHARE * self.memory_bytes / max(self.worker_bytes, 1.0)
        return fit if self.has_workers else max(1.0, fit)

    def most_by_shared_memory(self) -> float:
        """New processes whose micro-batches fit."""
        return _SHARE * self.shared_bytes / max(self.prefetch * self.batch_bytes, 1.0)

    def most_ready(self) -> float:
        """Micro-batches that fit, all processes' together: shared memory is memory, too."""
        return _SHARE * min(self.memory_bytes, self.shared_bytes) / max(self.batch_bytes, 1.0)
