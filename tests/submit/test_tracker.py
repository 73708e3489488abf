"""The login side asks the forwarder to create the MLflow run, waits a while, and breaks nothing off."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from orchestrator.run_dir import RunDir
from orchestrator.submit import tracker

SLOW = """
import sys, time
from pathlib import Path
started, ended = map(Path, sys.argv[1:3])
started.touch()
time.sleep(1.5)
ended.touch()
"""


def test_a_forwarder_that_is_still_making_a_store_is_left_to_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    (tmp_path / "slow.py").write_text(SLOW)
    words = (sys.executable, str(tmp_path / "slow.py"), str(started), str(ended))
    monkeypatch.setattr(tracker, "_forwarder", lambda run_dir, mode: words)
    monkeypatch.setattr(tracker, "CREATE_TIMEOUT_S", 1.0)
    assert tracker.create_mlflow_run(RunDir(tmp_path), dict(os.environ)) is False
    give_up_at = time.monotonic() + 30
    while not ended.exists():
        assert time.monotonic() < give_up_at, started.exists()
        time.sleep(0.05)
