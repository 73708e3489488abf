"""A rank's pulse: a few numbers in the node's memory, written by the rank and read by its supervisor.

The supervisor makes one small file for each of its ranks, in a private folder of this machine, and names the folder in
their environment. Until a rank opens its pulse the file is all zeros: nobody waits for a sign of it. Standard library
only: the rank does it before anything slow.
"""

from __future__ import annotations

import signal
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from orchestrator.files import PRIVATE_FILE

STACK_SIGNAL = signal.SIGSTKFLT
"""At this a rank writes the stacks of its threads into its `stack_file`. Linux itself never sends it."""

_SIGN = struct.Struct("@qqqqd7d")
PULSE_BYTES = _SIGN.size
PLACE = struct.Struct("@qqqd")
"""Phase, completed steps, backward passes since, time of the last sign: what signs change, at PLACE_AT."""
PLACE_AT = 8
SECONDS = struct.Struct("@d")
LONGEST_AT = PLACE_AT + PLACE.size
"""Where the longest silences begin, one for each phase."""


class Phase(IntEnum):
    """What a rank is at. After the same step, ranks go through START to END in this order."""

    REST = 0
    """Something that nobody knows the length of."""
    START = 1
    """Until the first step is made; whatever is loaded."""
    PREFLIGHT = 2
    """In the midst of the start: nodes are compared. Each of its parts counts as a backward pass."""
    EVALUATION = 3
    CHECKPOINT = 4
    STEP = 5
    END = 6

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Sign:
    """The last sign of life of a rank."""

    pid: int
    phase: Phase
    step: int
    """Completed optimizer steps."""
    num_backward: int
    """Backward passes that were begun since: in these ranks wait for each other's gradients. Parts of the preflight."""
    at_s: float
    """time.monotonic() of this machine."""
    longest_s: tuple[float, ...]
    """By phase, the longest silence in it so far, 0 where none is known; of START, that in the first step alone."""


def pulse_file(folder: Path, rank: int) -> Path:
    """Where a rank leaves its signs."""
    return folder / f"rank-{rank}"


def stack_file(folder: Path, rank: int) -> Path:
    """Where a rank writes its stacks itself."""
    return folder / f"stack-{rank}"


def make_pulse(folder: Path, rank: int) -> None:
    """The file of a rank that has given no sign yet. All of it is written, so that a rank needs no more room."""
    path = pulse_file(folder, rank)
    path.touch(PRIVATE_FILE, exist_ok=False)
    path.write_bytes(bytes(PULSE_BYTES))


def read_sign(folder: Path, rank: int) -> Sign | None:
    """The last sign of a rank; None where there has been none.

    A rank may be giving one right now: what was read twice alike is true.
    """
    try:
        pid, phase, step, num_backward, at_s, *longest_s = _SIGN.unpack(pulse_file(folder, rank).read_bytes())
        return Sign(pid, Phase(phase), step, num_backward, at_s, tuple(longest_s)) if pid else None
    except (OSError, struct.error, ValueError):
        return None
