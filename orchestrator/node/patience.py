"""How long a rank may be silent before it hangs. Pure.

Ranks work in step: where one hangs, all others wait for it, and a rank that waits is no other than one that hangs. So
a hang is when everybody is silent for too long, each by its own measure. As long as one rank is at work (writing a
checkpoint, say), whoever waits for it is fine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.pulse import Phase, Sign

UNKNOWN_S = 15 * 60.0
"""Seconds that are allowed where nothing is known: start, end, the first evaluation, the first checkpoint."""
TIMES = 10.0
"""How much longer than ever before a silence may be."""


def bound_s(sign: Sign, *, floor_s: float) -> float:
    """The longest silence, in seconds, that a rank may keep after this sign.

    The floor in the preflight, whose parts take seconds; else
    max(floor, TIMES * the longest silence in that phase so far); UNKNOWN_S for TIMES * ... where none is known. A step
    may also take what the first one took: a model is compiled anew for another shape.
    """
    if sign.phase is Phase.REST:
        return math.inf
    if sign.phase is Phase.PREFLIGHT:
        return floor_s
    longest_s = sign.longest_s[sign.phase]
    if sign.phase in (Phase.START, Phase.END) or not longest_s:
        return max(floor_s, UNKNOWN_S)
    first_step_s = sign.longest_s[Phase.START] if sign.phase is Phase.STEP else 0.0
    return max(floor_s, TIMES * longest_s, first_step_s)


def silences(signs: Mapping[int, Sign], *, now_s: float, awake_since_s: float, floor_s: float) -> dict[int, float]:
    """Seconds of silence by rank, if every rank is silent for too long; else nothing. Times are time.monotonic().

    No silence counts from before `awake_since_s`: whoever looks was stopped then, and so perhaps was the whole machine.
    """
    silent_s = {rank: now_s - max(sign.at_s, awake_since_s) for rank, sign in signs.items()}
    is_over = all(silent_s[rank] > bound_s(sign, floor_s=floor_s) for rank, sign in signs.items())
    return silent_s if is_over else {}
