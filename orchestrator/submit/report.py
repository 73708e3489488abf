"""How well a run used its machines, with the scheduler's word on what it is at."""

from __future__ import annotations

import math

from orchestrator.run_dir import RunDir
from orchestrator.submit.attempts import AT_WORK, attempts_of
from orchestrator.submit.runs import RunState, statuses
from orchestrator.tracking.report.report import Report, read_report


def report_on(run: RunDir) -> Report:
    """Its scheduler is asked once, and its journals are read whole."""
    return report_in(run, statuses([run])[0].state)


def report_in(run: RunDir, state: RunState, *, since: float = -math.inf) -> Report:
    """The same on a run that is known to be in `state`; usage `since` then (Unix seconds)."""
    return read_report(run, state=state, is_at_work=state in AT_WORK, history=attempts_of(run, state), since=since)
