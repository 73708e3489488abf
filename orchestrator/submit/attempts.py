"""The attempts of a run as the login side tells of them: with the scheduler's word on whether one is at work."""

from __future__ import annotations

import time

from orchestrator.run_dir import RunDir
from orchestrator.submit.runs import RunState
from orchestrator.tracking.attempts import History, read_history
from orchestrator.tracking.step_times import StepTimes

AT_WORK: frozenset[RunState] = frozenset({"running", "unknown"})
"""States in which an attempt without a verdict has not ended."""


def attempts_of(run: RunDir, state: RunState) -> History:
    """The attempts of one run that is in `state`. Reads rank 0's journals whole: not for a list of many runs."""
    return read_history(run, StepTimes(run.path), now=time.time() if state in AT_WORK else None)
