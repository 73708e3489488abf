"""Two drivers on one run: the second ends itself, and a number is taken once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import RunError
from orchestrator.files import make_private_dir, write_json
from orchestrator.heartbeat import Heartbeat
from orchestrator.job.beginning import new_attempt, require_alone
from orchestrator.run_dir import RunDir


@contextmanager
def at_work(heartbeat: Heartbeat) -> Iterator[None]:
    """A driver that beats every tenth of a second."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.1):
            heartbeat.write()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(make_private_dir(tmp_path / "run"))
    new_attempt(run, after=None)
    return run


def test_a_run_whose_driver_is_at_work_is_refused_with_its_job_and_host(run: RunDir) -> None:
    heartbeat = Heartbeat(run.attempt(0).driver, job_id="41", host="node7")
    heartbeat.write()
    with at_work(heartbeat), pytest.raises(RunError, match="job 41 is at work on this run, on node7"):
        require_alone(run, patience_s=5)


def test_a_driver_that_has_just_made_its_attempt_is_heard_of_a_moment_later(run: RunDir) -> None:
    with at_work(Heartbeat(run.attempt(0).driver, job_id="41", host="node7")), pytest.raises(RunError, match="job 41"):
        require_alone(run, patience_s=5)


def test_a_driver_whose_heart_stands_still_is_waited_for_no_longer_than_that(run: RunDir) -> None:
    Heartbeat(run.attempt(0).driver, job_id="41", host="node7").write()
    require_alone(run, patience_s=0.6)


def test_after_a_verdict_nobody_is_waited_for(run: RunDir) -> None:
    write_json(run.attempt(0).verdict, {"final": False})
    began = time.monotonic()
    require_alone(run)
    assert time.monotonic() - began < 1


def test_the_attempt_after_ones_own_is_taken_once(run: RunDir) -> None:
    first = run.attempt(0)
    assert new_attempt(run, after=first).number == 1
    with pytest.raises(RunError, match="another driver is at work"):
        new_attempt(run, after=first)
