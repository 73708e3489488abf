"""The beginning of an attempt: its number is the run's fence, and no two drivers are at work on one run.

Directories of attempts are made by exactly one driver each, in order. A rank saves only while its attempt is the last
one: whatever is still alive of an earlier one, on a node that nobody reaches, ends itself before it can.
"""

from __future__ import annotations

import time

from orchestrator.errors import Problem, RunError
from orchestrator.files import make_private_dir, read_json
from orchestrator.heartbeat import SILENT_S, last_sign
from orchestrator.run_dir import AttemptDir, RunDir

_LOOK_S = 0.5


def require_alone(run: RunDir, *, patience_s: float = SILENT_S) -> None:
    """Raise RunError where a driver is at work on the run: where its heartbeat goes on.

    Takes no time where the last attempt has its verdict, else `patience_s`. One that has just begun may have no
    heartbeat yet.
    """
    last = run.last_attempt()
    if last is None or last.verdict.exists():
        return
    give_up_at = time.monotonic() + patience_s
    first = last_sign(last.driver)
    while time.monotonic() < give_up_at and not last.verdict.exists():
        time.sleep(_LOOK_S)
        if last_sign(last.driver) != first:
            told = read_json(last.driver) or {}
            what = f"job {told.get('job_id')} is at work on this run, on {told.get('host')}"
            raise RunError(Problem(str(run.path), what, "this job ends itself; `orchestrate status` shows the run"))


def new_attempt(run: RunDir, *, after: AttemptDir | None) -> AttemptDir:
    """Make the directory of the attempt after that one. Raises RunError where it cannot be made, or somebody has."""
    attempt = run.attempt(0 if after is None else after.number + 1)
    try:
        make_private_dir(attempt.path, exist_ok=False)
        make_private_dir(attempt.logs)
    except OSError as error:
        fix = "start the run where every node can write" if not attempt.path.exists() else "another driver is at work"
        raise RunError(Problem(str(attempt.path), f"cannot be created: {error.strerror}", fix)) from None
    return attempt
