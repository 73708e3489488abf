"""The global order of samples: a pure function of (seed, sizes), the same on any machine and any world. numpy, lazily.

Position p of the order lies in epoch p // N, at index p % N of that epoch's permutation of the N samples of all
datasets together. Global batch t is positions [t * B, (t + 1) * B), and runs across epoch ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SampleOrder:
    """The order of all samples of a run; `sizes` are the datasets' declared sizes, in the recipe's order."""

    seed: int
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def samples_per_epoch(self) -> int:
        return sum(self.sizes)

    def ids(self, positions: range) -> list[int]:
        """The sample ids (0 to N - 1 over all datasets, one after the other) at `positions`."""
        num_samples = self.samples_per_epoch
        return [int(self._epoch(p // num_samples)[p % num_samples]) for p in positions]

    def digest(self) -> str:
        """sha256 of what the order depends on and of its first permutation: kept in checkpoints, compared on resume."""
        what = repr((self.seed, self.names, self.sizes)).encode()
        return hashlib.sha256(what + self._epoch(0).tobytes()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What the order depends on, as JSON: kept in checkpoints, so that a resume can say what has changed."""
        sizes = {name: {"num_samples": size} for name, size in zip(self.names, self.sizes, strict=True)}
        return {"seed": self.seed, "strategy": "together", "datasets": sizes}

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        return permutation(self.seed, epoch, self.samples_per_epoch)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    """The order of one epoch: indices sorted by Philox's raw 64-bit stream keyed by (seed, epoch).

    numpy guarantees the raw streams of its bit generators, not the methods of Generator (NEP 19), so a checkpoint
    outlives a numpy upgrade. Each key is the random number's upper bits with the index below them: keys are unique,
    so any sorting algorithm gives this order. Costs O(N log N) time and 16 N bytes.
    """
    import numpy as np

    key = np.array([seed, epoch], dtype=np.uint64)
    stream = np.random.Philox(key=key).random_raw(num_samples)
    index_bits = np.uint64((num_samples - 1).bit_length())
    mask = (np.uint64(1) << index_bits) - np.uint64(1)
    keys = (stream & ~mask) | np.arange(num_samples, dtype=np.uint64)
    keys.sort()
    return (keys & mask).astype(np.int64)


def order_of(seed: int, datasets: Sequence[tuple[str, int]]) -> SampleOrder:
    """The order over `datasets`, each a (name, number of samples)."""
    return SampleOrder(seed, tuple(name for name, _ in datasets), tuple(size for _, size in datasets))
