"""The global order of samples: a pure function of (seed, datasets, mixture), the same on any machine and any world.

Datasets that are concatenated are one pool: position p lies in epoch p // N, at index p % N of that epoch's permutation
of the N samples of all. In a mixture each dataset is a pool of its own: position p belongs to pool pattern[p % D], and
is its m-th draw, at index m % n of the permutation of pass m // n. Global batch t is positions [t * B, (t + 1) * B),
and runs across epoch ends. Nothing is remembered from one position to the next. numpy, lazily.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.plan.interleave import interleaved
from orchestrator.plan.shares import MixturePlan, Share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 4096
"""Positions computed at a time, at most, for callers that walk: a window of 16 then costs microseconds."""
_STRETCH = 65_536
"""Positions computed at a time for long ranges: what they need fits a processor's cache."""
_PINNED = 1000
"""Samples of the permutation that enters the digest."""


class Pool(NamedTuple):
    """Samples that are permuted together, pass by pass."""

    name: str
    """The dataset's; '' for all of them."""
    key: int
    """Of its permutations, beside the number of the pass."""
    first_id: int
    num_samples: int
    share: int
    shuffled: bool = True


Permute = Callable[[Pool, int], "NDArray[np.int64]"]
"""The order of a pool's indices in one of its passes."""


def computed(pool: Pool, number: int) -> NDArray[np.int64]:
    """A pass's permutation, computed; that of an iterable dataset is its own order."""
    import numpy as np

    if not pool.shuffled:
        return np.arange(pool.num_samples)
    return permutation(pool.key, number, pool.num_samples)


class _Phase(NamedTuple):
    """A stretch of an epoch in which the same datasets take turns."""

    start: int
    """Its first position in the epoch."""
    pools: tuple[Pool, ...]
    drawn: tuple[int, ...]
    """By pool: what was drawn of it before, in this epoch."""


@dataclass(frozen=True)
class SampleOrder:
    """The order of all samples of a run; ids are 0 to N - 1 over all datasets, one after the other."""

    seed: int
    mixture: MixturePlan
    samples_per_epoch: int
    permute: Permute = field(default=computed, compare=False, repr=False)
    _blocks: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """The last two that were asked for."""
    _permutations: dict[str, tuple[int, NDArray[np.int64]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """By pool, the last one that was asked for."""

    def ids(self, positions: range) -> list[int]:
        """The sample ids at `positions`."""
        ids: list[int] = self.draws(positions)[0].tolist()
        return ids

    def draws(self, positions: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sample ids at `positions`, and for each the pass over its dataset that it belongs to."""
        import numpy as np

        size = self._block_size
        first, last = positions.start // size, (positions.stop - 1) // size
        if last - first > 1:
            return self._computed(positions)
        parts = [self._block(number) for number in range(first, last + 1)]
        begin, end = positions.start - first * size, positions.stop - first * size
        if len(parts) == 1:
            return parts[0][0][begin:end], parts[0][1][begin:end]
        ids, passes = (np.concatenate(both)[begin:end] for both in zip(*parts, strict=True))
        return ids, passes

    def passes_at(self, consumed_samples: int) -> dict[str, float]:
        """How often each dataset has been passed over when `consumed_samples` are."""
        return {share.name: self.mixture.passes(share, consumed_samples) for share in self.mixture.shares}

    def describe(self) -> dict[str, Any]:
        """What the order depends on, as JSON: kept in checkpoints, so that a resume can say what has changed."""
        datasets = {}
        for share in self.mixture.shares:
            about = {"num_samples": share.num_samples}
            if self.mixture.strategy != "concatenate":
                about["share"] = share.share
            datasets[share.name] = about | ({"iterable": True} if share.iterable else {})
        how = {"strategy": self.mixture.strategy, "exhaustion": self.mixture.exhaustion}
        return {"seed": self.seed, **how, "datasets": datasets}

    def digest(self) -> str:
        """sha256 of what the order depends on and of a permutation: kept in checkpoints, compared on resume."""
        what = json.dumps(self.describe()).encode()
        return hashlib.sha256(what + permutation(self.seed, 0, _PINNED).tobytes()).hexdigest()

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """What is permuted, in the order of the datasets."""
        shares = self.mixture.shares
        if self.mixture.strategy == "concatenate":
            total = sum(share.num_samples for share in shares)
            return (Pool("", self.seed, 0, total, 1, not any(share.iterable for share in shares)),)
        pools, first_id = [], 0
        for share in shares:
            key = pool_key(self.seed, share.name)
            pools.append(Pool(share.name, key, first_id, share.num_samples, share.share, not share.iterable))
            first_id += share.num_samples
        return tuple(pools)

    @cached_property
    def _block_size(self) -> int:
        """Small where a dataset is tiny: each of its passes is a permutation of its own."""
        return min(_BLOCK, 64 * min(pool.num_samples for pool in self.pools))

    @cached_property
    def _phases(self) -> tuple[_Phase, ...]:
        """One without end; or, where datasets are dropped, one from each end of a dataset to the next."""
        phases = [_Phase(0, self.pools, (0,) * len(self.pools))]
        if self._drops:
            while following := _after(phases[-1]):
                phases.append(following)
        return tuple(phases)

    @property
    def _drops(self) -> bool:
        return self.mixture.strategy != "concatenate" and self.mixture.exhaustion == "drop"

    def _block(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if number not in self._blocks:
            while len(self._blocks) > 1:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = self._computed(range(number * self._block_size, (number + 1) * self._block_size))
        return self._blocks[number]

    def _computed(self, positions: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        import numpy as np

        ids, passes = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        begin = 0
        for phase, epoch, within in self._stretches(positions):
            at = slice(begin, begin := begin + len(within))
            for pool, drawn, where in _turns(phase, within):
                start = drawn + epoch * pool.num_samples
                ids[at][where], passes[at][where] = self._drawn(pool, range(start, start + len(where)))
        return ids, passes

    def _stretches(self, positions: range) -> Iterator[tuple[_Phase, int, range]]:
        """`positions` cut where a phase ends, and in handy lengths: (phase, epoch, positions in that epoch)."""
        position = positions.start
        while position < positions.stop:
            length = min(_STRETCH, positions.stop - position)
            epoch, start = divmod(position, self.samples_per_epoch) if self._drops else (0, position)
            index = sum(phase.start <= start for phase in self._phases)
            if self._drops:
                end = self._phases[index].start if index < len(self._phases) else self.samples_per_epoch
                length = min(length, end - start)
            yield self._phases[index - 1], epoch, range(start, start + length)
            position += length

    def _drawn(self, pool: Pool, draws: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The ids of successive draws of a pool, and their passes: slices of its permutations."""
        import numpy as np

        numbers = range(draws.start // pool.num_samples, -(-draws.stop // pool.num_samples))
        starts = (number * pool.num_samples for number in numbers)
        parts = [
            self._permutation(pool, number)[max(draws.start - start, 0) : draws.stop - start]
            for number, start in zip(numbers, starts, strict=True)
        ]
        passes = np.repeat(np.arange(numbers.start, numbers.stop), [len(part) for part in parts])
        return np.concatenate(parts) + pool.first_id, passes

    def _permutation(self, pool: Pool, number: int) -> NDArray[np.int64]:
        known = self._permutations.get(pool.name)
        if known is None or known[0] != number:
            known = self._permutations[pool.name] = number, self.permute(pool, number)
        return known[1]


def _turns(phase: _Phase, positions: range) -> Iterator[tuple[Pool, int, NDArray[np.int64]]]:
    """What `positions` of an epoch draw from each pool: (pool, draws before, where among them it is drawn from)."""
    import numpy as np

    shares = tuple(pool.share for pool in phase.pools)
    pattern, period = interleaved(shares), sum(shares)
    rounds, begin = divmod(positions.start - phase.start, period)
    turns = pattern[np.arange(begin, begin + len(positions)) % period]
    for index, (pool, drawn) in enumerate(zip(phase.pools, phase.drawn, strict=True)):
        where = np.flatnonzero(turns == index)
        if len(where):
            before = rounds * pool.share + int(np.count_nonzero(pattern[:begin] == index))
            yield pool, drawn + before, where


def _after(phase: _Phase) -> _Phase | None:
    """The phase after `phase`, which ends with the first dataset of which nothing is left."""
    import numpy as np

    shares = tuple(pool.share for pool in phase.pools)
    pattern, period = interleaved(shares), sum(shares)

    def end_of(index: int) -> int:
        """Turns until nothing is left of a dataset."""
        rounds, last = divmod(phase.pools[index].num_samples - phase.drawn[index] - 1, shares[index])
        return rounds * period + int(np.flatnonzero(pattern == index)[last]) + 1

    length = min(map(end_of, range(len(shares))))
    rounds, rest = divmod(length, period)
    counts = np.bincount(pattern[:rest], minlength=len(shares)) + rounds * np.array(shares)
    drawn = [before + int(count) for before, count in zip(phase.drawn, counts, strict=True)]
    left = [(pool, n) for pool, n in zip(phase.pools, drawn, strict=True) if n < pool.num_samples]
    if not left:
        return None
    return _Phase(phase.start + length, tuple(pool for pool, _ in left), tuple(n for _, n in left))


def pool_key(seed: int, name: str) -> int:
    """A dataset's own key, 64 bits: what one dataset is given does not hang on the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")


def permutation(key: int, number: int, num_samples: int) -> NDArray[np.int64]:
    """The order of one pass: indices sorted by Philox's raw 64-bit stream keyed by (key, number of the pass).

    numpy guarantees the raw streams of its bit generators, not the methods of Generator (NEP 19), so a checkpoint
    outlives a numpy upgrade. Each key is the random number's upper bits with the index below them: keys are unique,
    so any sorting algorithm gives this order. Costs O(N log N) time and 16 N bytes.
    """
    import numpy as np

    stream = np.random.Philox(key=np.array([key, number], dtype=np.uint64)).random_raw(num_samples)
    index_bits = np.uint64((num_samples - 1).bit_length())
    mask = (np.uint64(1) << index_bits) - np.uint64(1)
    keys = (stream & ~mask) | np.arange(num_samples, dtype=np.uint64)
    keys.sort()
    return (keys & mask).astype(np.int64)


def order_of(seed: int, datasets: Sequence[tuple[str, int]]) -> SampleOrder:
    """The order over concatenated `datasets`, each a (name, number of samples)."""
    shares = tuple(Share(name, num_samples, num_samples) for name, num_samples in datasets)
    mixture = MixturePlan("concatenate", "repeat", shares)
    return SampleOrder(seed, mixture, mixture.samples_per_epoch(None))
