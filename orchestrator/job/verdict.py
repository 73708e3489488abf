"""The verdict on an attempt: how it ended, what caused that, and who shows it. Values only; `judge` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Outcome = Literal["done", "stopped", "failed"]

Cause = Literal[
    "done",
    "asked",
    "cancelled",
    "preempted",
    "time_limit",
    "user_code",
    "device_memory",
    "host_memory",
    "node_lost",
    "killed",
    "hung",
    "network",
    "non_finite",
    "disk_full",
    "failed_check",
    "launch",
    "unknown",
]
"""asked: by a signal from a person or a program; killed: a rank or a supervisor, by a signal that nobody explains;
network: ranks lost each other and none says why; launch: the workers could not be started."""


@dataclass(frozen=True)
class OutOfMemory:
    """What a rank was working on when its memory ran out, as far as it is known; sizes in bytes."""

    micro_batch_size: int | None = None
    """Samples; None where a smaller micro-batch would not help, or nobody knows."""
    step: int | None = None
    peak_bytes: int | None = None
    capacity_bytes: int | None = None
    is_command: bool = False
    """It was in a recipe's own command without a session, whose last line says it."""
    opens_session: bool = False
    """It was in a command with a session, which makes its model by itself."""


_LISTS = ("last_lines", "lost_nodes", "failed_nodes", "left_out")


@dataclass(frozen=True)
class Verdict:
    """The contents of verdict.json, but for `final`, `then` and `ended_at`."""

    outcome: Outcome
    reason: str
    rank: int | None = None
    node: str | None = None
    last_lines: tuple[str, ...] = ()
    step: int | None = None
    """The step that was saved when it was asked to stop, or the last one when it is done."""
    metrics: dict[str, float] | None = None
    out_of_memory: OutOfMemory | None = None
    """Present when the memory of a rank's device did not suffice."""
    asked_by: str | None = None
    """The signal by which the run was asked to stop before it failed."""
    cause: Cause = "unknown"
    failed_step: int | None = None
    """The step that a rank was at when it failed, where it says so."""
    lost_nodes: tuple[str, ...] = ()
    """Nodes that the allocation had when the attempt began, and has no more."""
    failed_nodes: tuple[str, ...] = ()
    """Nodes that failed a check of their own, or fell behind the others in the preflight."""
    checkpoint_step: int | None = None
    """The step of the newest complete checkpoint when the attempt had ended; None without one."""
    left_out: tuple[str, ...] = field(default=())
    """Nodes that the rest of the job does without, because of this attempt."""
    successor: str | None = None
    """The job that goes on after this one, where the run went back to the queue."""

    def as_json(self, *, ended_at: float, then: str | None = None) -> dict[str, Any]:
        """`then` is what comes next of itself; without it the verdict is the run's final one."""
        told = {**asdict(self), **{name: list(getattr(self, name)) for name in _LISTS}}
        return {**told, "final": then is None, "then": then, "ended_at": ended_at}


def verdict_from_json(told: Mapping[str, Any]) -> Verdict:
    """What `as_json` wrote, an older version's too."""
    known = {name: told[name] for name in (one.name for one in fields(Verdict)) if name in told}
    memory = known.get("out_of_memory")
    known |= {name: tuple(known.get(name, ())) for name in _LISTS}
    return Verdict(**known | {"out_of_memory": OutOfMemory(**memory) if memory else None})
