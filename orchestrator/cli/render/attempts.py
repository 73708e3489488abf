"""The attempts of a run as the table people read, and the share of its time that counts. Pure."""

from __future__ import annotations

import time

from orchestrator.cli.render.text import aligned
from orchestrator.submit.attempts import AT_WORK
from orchestrator.submit.runs import RunState
from orchestrator.tracking.attempt_text import HEAD, cells, ratio_text, why_it_ended
from orchestrator.tracking.attempts import History


def slow_ranks(history: History, state: RunState) -> list[str]:
    """A line for each rank that is slow, or was, in the last attempt of a run that is in `state`."""
    return history.slow_ranks(at_work=state in AT_WORK)


def attempts_screen(history: History, state: RunState) -> str:
    """The attempts of a run that is in `state`, one a line, oldest first, in local time; below them what counts."""
    last = "at work" if state in AT_WORK else "ended without a verdict"
    rows = [
        cells(each, why_it_ended(each, at_work=last if each is history.attempts[-1] else None), clock=time.localtime)
        for each in history.attempts
    ]
    ratio = ratio_text(history)
    return aligned([tuple(map(str.upper, HEAD)), *rows]) + (f"{ratio}\n" if ratio else "")
