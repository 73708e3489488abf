"""Ranks that were slow, as rank 0 journals them and as people are told of them. Pure; standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

EVENT = "straggler"
"""The event of the journal that tells a Straggler when it begins, and again when it ends."""
MOST_TOLD = 3
"""So many are told in full: of two nodes a slow one may have many ranks."""

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "rank": int,
    "node": str,
    "slow_at": str,
    "times_median": (int, float),
    "cost": (int, float),
    "since_step": int,
    "until_step": (int, type(None)),
}


@dataclass(frozen=True)
class Straggler:
    """A rank that was slow for long enough to be named."""

    rank: int
    node: str
    slow_at: Literal["data", "compute"]
    """Where most of its excess is: in waiting for its data, or in its forward pass and what it computes alone."""
    times_median: float
    """Its own time in a step, as a multiple of the median of all ranks."""
    cost: float
    """Its excess as a share of the step: every rank waits for so long, at least."""
    since_step: int
    until_step: int | None = None
    """The last step in which it was seen to be slow; None while it goes on."""

    def as_detail(self) -> dict[str, Any]:
        """What the journal's event holds."""
        return asdict(self)

    @classmethod
    def from_detail(cls, detail: Any) -> Straggler | None:
        """What `as_detail` gave; None for anything else."""
        if not isinstance(detail, Mapping) or not all(isinstance(detail.get(k), t) for k, t in _FIELDS.items()):
            return None
        return cls(**{key: detail[key] for key in _FIELDS})

    def sentence(self, *, at_work: bool = True) -> str:
        """'rank 3 on node2 is slow at computing: 1.8 x the median of all ranks, ...' `at_work`: it may still be."""
        goes_on = self.until_step is None
        steps = f"since step {self.since_step}" if goes_on else f"steps {self.since_step} to {self.until_step}"
        verb = "is" if goes_on and at_work else "was"
        work = "fetching its data" if self.slow_at == "data" else "computing"
        figures = f"{self.times_median:.1f} x the median of all ranks, at least {self.cost:.0%} of each step"
        return f"rank {self.rank} on {self.node} {verb} slow at {work}: {figures} ({steps})"


def straggler_of(record: Mapping[str, Any] | None) -> Straggler | None:
    """What a record of the journal tells of a slow rank; None for any other record."""
    if record is None or record.get("kind") != "event" or record.get("name") != EVENT:
        return None
    return Straggler.from_detail(record.get("detail"))


def sentences(stragglers: Iterable[Straggler], *, at_work: bool) -> list[str]:
    """One line for each: those that are still slow first, the newest first; of more than MOST_TOLD, how many more."""
    newest = sorted(stragglers, key=lambda one: (one.until_step is not None, -one.since_step, one.rank))
    lines = [one.sentence(at_work=at_work) for one in newest[:MOST_TOLD]]
    more = len(newest) - MOST_TOLD
    return [*lines, f"and {more} more like this: events `{EVENT}` in rank 0's journal"] if more > 0 else lines
