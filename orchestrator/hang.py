"""A rank that hangs, as its supervisor tells it, and which of several hung first. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.pulse import Phase


@dataclass(frozen=True)
class Hang:
    """A rank that was silent for longer than it ever should be."""

    rank: int
    phase: str
    """What it was at: start, preflight, evaluation, checkpoint, step or end."""
    silent_s: float
    stack: str | None = None
    """The file in the attempt's directory that shows where it stood; None where that could not be had."""
    step: int = 0
    """Its completed optimizer steps."""
    num_backward: int = 0
    """Backward passes that it has begun since."""
    is_held: bool = False
    """Whether the kernel did not let it run: it was stopped, or waited for a disk or a file system."""
    since: float = 0.0
    """Seconds since the epoch at its last sign of life."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def first_to_hang(hangs: Iterable[Hang]) -> Hang:
    """The one that the others wait for: one that is held, else the one least far, else the one silent longest.

    Whoever looks at the same hangs finds the same one.
    """
    return min(hangs, key=_lead)


def _lead(hang: Hang) -> tuple[bool, int, Phase, int, float, int]:
    return not hang.is_held, hang.step, Phase[hang.phase.upper()], hang.num_backward, hang.since, hang.rank
