"""Whose turn it is: datasets merged by integer shares, no prefix further than one sample from any share. numpy, lazily.

Tijdeman's schedule: among the datasets that are behind, the next turn is that of the one which would first be too far
behind. With K datasets no prefix of any length is further than 1 - 1 / (2K - 2) from any share.
Source: R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980) 323-330.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@lru_cache(maxsize=8)
def interleaved(shares: tuple[int, ...]) -> NDArray[np.uint16]:
    """The pattern of one period of sum(shares) turns: at each, the index of a dataset. It repeats without end.

    Integers alone: the same on any machine. Costs about a microsecond a turn.
    """
    import numpy as np

    return np.fromiter(_turns(shares), dtype=np.uint16, count=sum(shares))


def _turns(shares: tuple[int, ...]) -> Iterator[int]:
    """A dataset's unit j may be taken from the first turn n on with n * share / D - j >= 1 / m, and must be taken up to
    the last with n * share / D - j <= 1 - 1 / m, where m = max(2, 2K - 2) and turns count from 1."""
    period, m = sum(shares), max(2, 2 * len(shares) - 2)
    taken = [0] * len(shares)
    waiting: list[tuple[int, int]] = []
    """(first turn at which it may be taken, dataset)"""
    ready: list[tuple[int, int]] = []
    """(last turn by which it must be taken, dataset)"""
    for index, share in enumerate(shares):
        heappush(waiting, (-(-period // (share * m)), index))
    for turn in range(1, period + 1):
        while waiting and waiting[0][0] <= turn:
            index = heappop(waiting)[1]
            heappush(ready, (period * (taken[index] * m + m - 1) // (shares[index] * m), index))
        index = heappop(ready)[1]
        yield index
        taken[index] += 1
        heappush(waiting, (-(-period * (taken[index] * m + 1) // (shares[index] * m)), index))
