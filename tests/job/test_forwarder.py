"""The forwarder beside a run: it comes back when it dies, and a run never waits for it for long."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from orchestrator.files import write_json
from orchestrator.job import forwarder as room
from orchestrator.job.forwarder import Forwarder
from orchestrator.run_dir import RunDir
from tests.support.waiting import wait_for

COUNT_AND_FAIL = "import sys; print('started', flush=True); sys.exit(int(sys.argv[1]))"


def forwarder_that(run: RunDir, code: str, *arguments: str) -> Forwarder:
    return Forwarder(run, [sys.executable, "-c", code, *arguments])


def log_of(run: RunDir) -> str:
    return (run.forward / "forward.log").read_text()


def test_it_alone_gets_the_jobs_mlflow_variables(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_json(run.environment, {"MLFLOW_TRACKING_TOKEN": "t0ken"})
    forwarder = forwarder_that(run, "import os; print(os.environ['MLFLOW_TRACKING_TOKEN'])")
    assert forwarder.drain(timeout_s=20)
    assert log_of(run) == "t0ken\n"


def test_one_that_dies_is_started_again_with_growing_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_FIRST_PAUSE_S", 0.1)
    run = RunDir(tmp_path)
    forwarder = forwarder_that(run, COUNT_AND_FAIL, "1")
    began, starts = time.monotonic(), list[float]()
    while len(starts) < 4:
        forwarder.keep_running()
        if log_of(run).count("started") > len(starts):
            starts.append(time.monotonic() - began)
        time.sleep(0.02)
        assert time.monotonic() - began < 60
    assert not forwarder.drain(timeout_s=0)
    assert starts[-1] >= 0.1 + 0.2 + 0.4, "at once, then after pauses that double"


def test_one_that_gives_way_to_another_tries_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(room, "_LONGEST_PAUSE_S", 60.0)
    run = RunDir(tmp_path)
    code = (
        "import pathlib, sys; print('busy'); sys.exit(3 * (pathlib.Path(sys.argv[1]).read_text().count('busy') < 12))"
    )
    assert forwarder_that(run, code, str(run.forward / "forward.log")).drain(timeout_s=60), "doubled they take 100 s"


def test_one_that_does_not_end_is_ended(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    forwarder = forwarder_that(run, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    forwarder.keep_running()
    wait_for(lambda: log_of(run).endswith("\n"))
    assert not forwarder.drain(timeout_s=1.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(log_of(run)), 0)


def test_one_that_cannot_be_started_is_told_and_not_raised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not Forwarder(RunDir(tmp_path), ["/no/such/program"]).drain(timeout_s=0.3)
    assert "the forwarder cannot be started" in capsys.readouterr().out
