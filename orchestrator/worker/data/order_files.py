"""Permutations of large datasets: computed once for a run, stored, and mapped into memory by every rank."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.files import PRIVATE_FILE, make_private_dir, write_atomically
from orchestrator.plan.mixture import Pool, computed
from orchestrator.run_dir import RunDir

SMALL = 1_000_000
"""Permutations of fewer samples are computed where they are needed: that takes less than 0.1 s and 8 MB."""
_WAIT_S = 120.0
_POLL_S = 0.02


@dataclass(frozen=True)
class StoredPermutations:
    """Permutations by (pool, pass), in files of the run directory that any rank may write: the bytes are the same.

    Where they cannot be stored or waited for, a rank computes for itself: files save time and memory, nothing else.
    """

    run: RunDir
    digest: str
    """Of the order."""

    def __call__(self, pool: Pool, number: int) -> NDArray[np.int64]:
        if pool.num_samples < SMALL or not pool.shuffled:
            return computed(pool, number)
        path = self.run.permutation(self.digest, pool.name, number)
        stored = _mapped(path, pool)
        if stored is None:
            with contextlib.suppress(OSError), self._alone(path):
                stored = _mapped(path, pool)
                if stored is None:
                    _store(path, computed(pool, number))
                    self._forget_before(pool, number)
                    stored = _mapped(path, pool)
        return computed(pool, number) if stored is None else stored

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """One process at a time, on all nodes; a lock goes with the process that held it. Raises OSError in the end."""
        make_private_dir(path.parent)
        file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        give_up_at = time.monotonic() + _WAIT_S
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up_at:
                        raise
                    time.sleep(_POLL_S)
            yield
        finally:
            os.close(file)

    def _forget_before(self, pool: Pool, number: int) -> None:
        """The pass before this one may still be read; those before it are over, also for a resume."""
        for suffix in (".npy", ".lock"):
            path = self.run.permutation(self.digest, pool.name, max(number - 2, -1))
            path.with_suffix(suffix).unlink(missing_ok=True)


def _mapped(path: Path, pool: Pool) -> NDArray[np.int64] | None:
    """The stored permutation; None where there is none, or none of that size."""
    try:
        stored: NDArray[np.int64] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == (pool.num_samples,) and stored.dtype == np.int64 else None


def _store(path: Path, order: NDArray[np.int64]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, order)
    write_atomically(path, buffer.getvalue())
