"""From journal records to what MLflow is sent: which points, which tags, each exactly once. Pure.

MLflow's metric table is keyed by (run, key, timestamp, step, value), so sending a batch twice changes nothing; that is
what makes a crash between sending and noting harmless. What is decided here is which points of a later attempt are
replays of steps that an earlier one already sent: those are skipped, and the first value of a (key, step) stays.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.tracking.records import each_step
from orchestrator.tracking.stragglers import straggler_of

MAX_KEY = 250
_BAD_CHARACTERS = re.compile(r"[^/\w.\- :]", re.ASCII)
_INT64 = range(-(2**63), 2**63)
_NON_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


class Point(NamedTuple):
    """One value of one metric: the recorded time in Unix milliseconds, and the step."""

    key: str
    value: float
    time_ms: int
    step: int


def clean_key(key: str) -> str:
    """`key` as MLflow accepts it: at most 250 of letters, digits and `_-. :/`, and no empty or `..` path parts."""
    tidy = posixpath.normpath(_BAD_CHARACTERS.sub("_", key).lstrip("/"))[:MAX_KEY].rstrip("/")
    return re.sub(r"(?:^|(?<=/))\.+(?=/|$)", "_", tidy) or "_"


@dataclass
class Cursor:
    """How far a run's journal has been replayed: byte offsets by file, high-water steps by metric, and counts.

    `owners` holds, by metric key, the attempt that set the high-water step and the step it began above.
    """

    offsets: dict[str, int] = field(default_factory=dict)
    last_step: dict[str, int] = field(default_factory=dict)
    owners: dict[str, list[int | None]] = field(default_factory=dict)
    points: int = 0
    rejected: int = 0
    damaged: int = 0
    complete: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Cursor:
        return cls(**value) if value else cls()

    def is_new(self, attempt: int, key: str, step: int) -> bool:
        """Whether this point is no replay; notes it. Within one attempt every point is new, whatever its order."""
        last = self.last_step.get(key)
        owner, floor = self.owners.get(key, (attempt, None))
        if last is None or step > last:
            self.owners[key] = [attempt, last if owner != attempt else floor]
            self.last_step[key] = step
            return True
        return owner == attempt and (floor is None or step > floor)


@dataclass
class Batch:
    """What one record or several ask MLflow to hold, and how many values could not be read."""

    points: list[Point] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0
    tells_slow_rank: bool = False
    """Whether there is something in it for the run's description."""

    def __bool__(self) -> bool:
        return bool(self.points or self.tags or self.unreadable)


class Source(NamedTuple):
    """Who wrote a record: the attempt's number and the node's name; and when the run began, in Unix seconds."""

    attempt: int
    node: str
    created_at: float


def add_record(batch: Batch, cursor: Cursor, source: Source, record: dict[str, Any]) -> None:
    """Add what one record holds to `batch`, and what it means for later ones to `cursor`."""
    if record.get("kind") == "tags":
        values = record.get("values")
        if isinstance(values, dict):
            batch.tags |= {clean_key(str(key)): str(value) for key, value in values.items()}
    elif record.get("kind") in ("metrics", "steps", "system"):
        for point in (point for each in each_step(record) for point in _points(each, source)):
            if point is None:
                batch.unreadable += 1
            elif cursor.is_new(source.attempt, point.key, point.step):
                batch.points.append(point)
    elif straggler_of(record) is not None:
        batch.tells_slow_rank = True


def _points(record: dict[str, Any], source: Source) -> Iterator[Point | None]:
    """The points of a metrics or system record; None for each value that is no number at an int64 step."""
    time_ms, values = record.get("time_ms"), record.get("values")
    if not isinstance(time_ms, int) or time_ms not in _INT64 or not isinstance(values, dict):
        yield None
        return
    system = record["kind"] == "system"
    step = max(0, int(time_ms / 1000 - source.created_at)) if system else record.get("step")
    prefix = f"system/{source.node}/" if system else ""
    for key, value in values.items():
        number = _NON_FINITE.get(value) if isinstance(value, str) else value
        if not isinstance(number, int | float) or not isinstance(step, int) or step not in _INT64:
            yield None
        else:
            yield Point(clean_key(prefix + key), float(number), time_ms, step)
