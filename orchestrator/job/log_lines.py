"""What the end of a rank's log says: its last lines that tell something, and the error among them. Pure."""

from __future__ import annotations

import re

NUM_LAST_LINES = 5

_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b.*")
_TRACEBACK_HEAD = re.compile(r"\s*(Traceback \(most recent call last\):|File \".*\", line \d+.*|[~^ ]*\^[~^ ]*)")


def last_lines(log: str, count: int = NUM_LAST_LINES) -> tuple[str, ...]:
    """The last lines of a log that say something: no blank ones, no frames of a trace-back."""
    told: list[str] = []
    in_frame = False
    for line in log.splitlines():
        is_head = bool(_TRACEBACK_HEAD.fullmatch(line))
        is_source = in_frame and line.startswith("    ")
        if line.strip() and not is_head and not is_source:
            told.append(line.rstrip())
        in_frame = is_head or is_source
    return tuple(told[-count:])


def error_line(lines: tuple[str, ...]) -> str | None:
    """The last of them that reads like an exception; None for none."""
    return next((line for line in reversed(lines) if _ERROR_LINE.fullmatch(line)), None)
