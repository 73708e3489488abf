"""Made-up workloads: how fast steps are with so many loader processes, and what a window of them would show."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from orchestrator.tuning.loader_law import MOST_WORKERS, Window

_SENT_S = 0.0006
"""What a micro-batch from another process costs the rank."""


@dataclass(frozen=True)
class Plant:
    """One workload on one machine."""

    rest_s: float
    """A step without its data."""
    cpu_s: float
    io_s: float
    """What one process takes for a step's data: on a core, and waiting for a disk."""
    cores: float
    """Without the rank's own."""
    most_io: float
    """Processes that the disk serves at their full speed."""
    thrash: float
    """How much of the speed each process costs that is there without a core."""
    noise: float

    def supply_s(self, workers: int) -> float:
        """Seconds between two steps' data, as fast as so many processes can."""
        without_core = max(0.0, workers * self.cpu_s / (self.cpu_s + self.io_s) - self.cores)
        free_s = max((self.cpu_s + self.io_s) / workers, self.cpu_s / self.cores, self.io_s / self.most_io)
        return free_s * (1.0 + self.thrash * without_core)

    def step_s(self, workers: int) -> float:
        if workers == 0:
            return self.rest_s + self.cpu_s + self.io_s
        return max(self.rest_s + _SENT_S, self.supply_s(workers))

    def window(self, workers: int, chance: random.Random) -> Window:
        """What is seen of some steps: with no processes the rank waits while it fetches itself."""
        step_s = self.step_s(workers)
        wait_s = step_s - self.rest_s
        is_starved = workers > 0 and self.supply_s(workers) > self.rest_s
        other_s = self.io_s * max(1.0, workers / self.most_io) if is_starved else self.io_s
        queue_s = max(0.0, workers * step_s - self.cpu_s - other_s) if is_starved else 0.0
        factor = max(0.5, chance.gauss(1.0, self.noise))
        return Window(step_s * factor, wait_s * factor, self.cpu_s * factor, queue_s * factor, other_s * factor)

    @cached_property
    def best_s(self) -> float:
        """A step with the best fixed setting, by an exhaustive look."""
        return min(self.step_s(workers) for workers in range(MOST_WORKERS + 1))


def random_plant(seed: int) -> Plant:
    """Steps of 3 to 500 ms; loading from a hundredth of that to twenty times as much, on cores, disks or both."""
    chance = random.Random(seed)
    rest_s = 0.003 * (500 / 3) ** chance.random()
    load_s = rest_s * 0.01 * 2000 ** chance.random()
    cpu_share = chance.choice([0.02, 0.98, chance.random()])
    return Plant(
        rest_s=rest_s,
        cpu_s=load_s * cpu_share,
        io_s=load_s * (1 - cpu_share),
        cores=chance.choice([1, 2, 3, 4, 6, 8, 12, 16, 31]),
        most_io=chance.choice([2, 4, 8, 16, 64]),
        thrash=chance.uniform(0.0, 0.06),
        noise=chance.uniform(0.002, 0.01),
    )
