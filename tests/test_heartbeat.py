"""The file by which a node says that it lives."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from orchestrator.heartbeat import HEARTBEAT_S, Heartbeat


def test_every_write_keeps_the_other_fields_and_carries_the_time(tmp_path: Path) -> None:
    path = tmp_path / "node-a.json"
    file = Heartbeat(path, node="a", state="checking")
    before = time.time()
    file.write(state="running")
    record = json.loads(path.read_text())
    assert (record["node"], record["state"]) == ("a", "running")
    assert before <= record["heartbeat_at"] <= time.time()
    assert [entry.name for entry in tmp_path.iterdir()] == ["node-a.json"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_beat_before_its_time_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node-a.json"
    file = Heartbeat(path, node="a")
    file.write()
    written = path.stat().st_ino
    file.beat()
    assert HEARTBEAT_S > 1 and path.stat().st_ino == written


def test_a_file_system_that_refuses_is_told_and_not_raised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Heartbeat(tmp_path / "gone" / "node-a.json", node="a")
    file.beat()
    assert "node-a.json cannot be written: No such file or directory" in capsys.readouterr().out
    with pytest.raises(OSError):
        file.write()
