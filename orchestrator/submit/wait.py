"""Waiting for a run: until its verdict is written and the forwarder has drained. Ends soon after the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from orchestrator.submit.backend import JobState
from orchestrator.submit.runs import ALIVE, RunStatus, job_states, status_of

POLL_S = 0.5
ASK_SCHEDULER_EVERY_S = 5.0
GONE_FOR_S = 10.0


@dataclass(frozen=True)
class Progress:
    """A look at a run; `ended` on the last one."""

    status: RunStatus
    ended: bool


def watch(run_dir: RunDir) -> Iterator[Progress]:
    """Look at the run's files twice a second and at the scheduler every five; the last look is the end.

    A job that the scheduler has ended gets ten seconds to leave its verdict (shared file systems are slow); then the
    run counts as lost. After a verdict, the forwarder brings the last points to MLflow for as long as the job lives.
    """
    gone_at: float | None = None
    for state in _scheduler(run_dir):
        status = status_of(run_dir, state)
        gone_at = (gone_at or time.monotonic()) if status.state == "lost" else None
        if status.state not in ALIVE and (gone_at is None or time.monotonic() - gone_at > GONE_FOR_S):
            break
        yield Progress(status, ended=False)
    for state in _scheduler(run_dir):
        if state == "ended" or (read_json(run_dir.cursor) or {}).get("complete"):
            break
    yield Progress(status_of(run_dir, state), ended=True)


def _scheduler(run_dir: RunDir) -> Iterator[JobState]:
    """The job's state, again and again: a local one is always fresh, a scheduler is asked every few seconds."""
    pause_s = 0.0 if (read_json(run_dir.job) or {}).get("backend") == "local" else ASK_SCHEDULER_EVERY_S
    state: JobState = "unknown"
    asked_at = -pause_s
    while True:
        if time.monotonic() - asked_at >= pause_s:
            state, asked_at = job_states([run_dir]).get(run_dir, "unknown"), time.monotonic()
        yield state
        time.sleep(POLL_S)
