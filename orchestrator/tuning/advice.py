"""What a running job cannot change by itself, and would help it: words for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from orchestrator.tuning.loader_law import IDLE_SHARE, MOST_WORKERS, Limits, Window, enough, usable_cores

_WORTH_TELLING = 0.95
"""A share of the speed that could be had, below which it is told."""


def advice(workers: int, window: Window, limits: Limits) -> Iterator[str]:
    """For a run that waits for data with `workers` loader processes, the number that was found: cores, then memory."""
    if window.wait_share <= IDLE_SHARE:
        return
    by_cores = window.rest_s * usable_cores(limits) / window.run_s if window.run_s > 0 else math.inf
    if by_cores < _WORTH_TELLING:
        more = math.ceil(window.run_s / window.rest_s - limits.cores)
        yield (
            f"reading data takes more cores than there are: they cap each rank at {by_cores:.0%} of its speed; "
            f"{more} more in resources.cpus_per_gpu would free it"
        )
    wanted = enough(window, limits)
    if workers < wanted and limits.most_workers < min(wanted, MOST_WORKERS):
        yield (
            f"{wanted} loader processes would keep up, and only {limits.most_workers} can be started at once, for "
            "memory, /dev/shm or one that was killed: ask for more in resources.memory, or let an item take less"
        )
