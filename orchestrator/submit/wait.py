"""Waiting for a run: until its verdict is written and the forwarder has drained. Ends soon after the truth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from orchestrator.submit.backend import JobState
from orchestrator.submit.runs import ALIVE, RunStatus, job_states, status_of

POLL_S = 0.5
ASK_SCHEDULER_EVERY_S = 4.0
FIRST_ANSWER_S = 2.0
FRESH_S = 15.0
"""An answer that is older than this says nothing of now."""
GONE_FOR_S = 10.0


@dataclass(frozen=True)
class Progress:
    """A look at a run; `ended` on the last one."""

    status: RunStatus
    ended: bool


def watch(run_dir: RunDir) -> Iterator[Progress]:
    """Look at the run's files twice a second and at the scheduler every four; the last look is the end.

    A job that the scheduler has ended gets ten seconds to leave its verdict (shared file systems are slow); then the
    run counts as lost. After a verdict, the forwarder brings the last points to MLflow for as long as the job lives;
    while the scheduler does not answer, for ten seconds more.
    """
    states = _scheduler(run_dir)
    gone_at: float | None = None
    for state in states:
        status = status_of(run_dir, state)
        if status.state == "lost":
            gone_at = gone_at or time.monotonic()
        elif state != "unknown":
            gone_at = None
        is_lost = status.state == "lost" and gone_at is not None and time.monotonic() - gone_at > GONE_FOR_S
        if is_lost or status.state not in (*ALIVE, "lost"):
            break
        yield Progress(status, ended=False)
    silent_at: float | None = None
    for state in states:
        silent_at = (silent_at or time.monotonic()) if state == "unknown" else None
        is_silent = silent_at is not None and time.monotonic() - silent_at > GONE_FOR_S
        if is_silent or state == "ended" or (read_json(run_dir.cursor) or {}).get("complete"):
            break
    states.close()
    yield Progress(status_of(run_dir, state), ended=True)


def _scheduler(run_dir: RunDir) -> Generator[JobState, None, None]:
    """The job's state, again and again: a local one is always fresh, a scheduler is asked every few seconds."""

    def ask() -> JobState:
        return job_states([run_dir]).get(run_dir, "unknown")

    if (read_json(run_dir.job) or {}).get("backend") == "local":
        while True:
            yield ask()
            time.sleep(POLL_S)
    asker = _Asker(ask)
    try:
        while True:
            yield asker.state()
            time.sleep(POLL_S)
    finally:
        asker.stop()


class _Asker:
    """Asks in a thread of its own: a scheduler that hangs must not keep us from the run's files."""

    def __init__(self, ask: Callable[[], JobState]) -> None:
        self._ask = ask
        self._state: JobState = "unknown"
        self._failure: BaseException | None = None
        self._answered_at = time.monotonic()
        self._first, self._stop = threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._first.wait(FIRST_ANSWER_S)

    def state(self) -> JobState:
        """The last answer, unless it is old. Raises what went wrong with asking."""
        if self._failure is not None:
            raise self._failure
        return self._state if time.monotonic() - self._answered_at < FRESH_S else "unknown"

    def stop(self) -> None:
        """Ask no more; a question that hangs ends by its own time-out."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._state, self._answered_at = self._ask(), time.monotonic()
            except BaseException as failure:
                self._failure = failure
                return
            finally:
                self._first.set()
            self._stop.wait(ASK_SCHEDULER_EVERY_S)
