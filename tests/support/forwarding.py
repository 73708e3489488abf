"""Run the forwarder as the driver would, and read from the store what arrived."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir

Row = tuple[str, int, float]


def forwarder_command(run: RunDir, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "orchestrator.tracking.forward", str(run.path), *options)


def forward(run: RunDir, *options: str, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the forwarder to its end."""
    return subprocess.run(
        forwarder_command(run, *options),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@contextlib.contextmanager
def at_work(run: RunDir, mode: str) -> Iterator[subprocess.Popen[str]]:
    """A forwarder at work beside the block; killed at its end if it is still there."""
    command = forwarder_command(run, mode)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 60) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come to pass in time"
        time.sleep(0.02)


def cursor_of(run: RunDir) -> dict[str, Any]:
    return read_json(run.cursor) or {"points": 0, "complete": False}


class Store:
    """What one run has in a sqlite store."""

    def __init__(self, db: Path, run: RunDir) -> None:
        self.db = db
        self.run_id = str(read_json(run.mlflow)["run_id"])

    def _query(self, sql: str, *values: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True, timeout=20)) as connection:
            return connection.execute(sql, values or (self.run_id,)).fetchall()

    @property
    def points(self) -> Counter[Row]:
        """How often each (key, step, value) is there."""
        return Counter(self._query("select key, step, value from metrics where run_uuid = ?"))

    @property
    def times(self) -> dict[tuple[str, int], int]:
        rows = self._query("select key, step, timestamp from metrics where run_uuid = ?")
        return {(key, step): time_ms for key, step, time_ms in rows}

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._query("select key, value from tags where run_uuid = ?"))

    @property
    def params(self) -> dict[str, str]:
        return dict(self._query("select key, value from params where run_uuid = ?"))

    @property
    def status(self) -> str:
        return str(self._query("select status from runs where run_uuid = ?")[0][0])

    @property
    def artifacts(self) -> Path:
        return Path(self._query("select artifact_uri from runs where run_uuid = ?")[0][0])

    def num_runs(self, uid: str) -> int:
        """Live runs tagged with this uid."""
        sql = "select count(*) from tags join runs using (run_uuid) where value = ? and lifecycle_stage = 'active'"
        return int(self._query(sql, uid)[0][0])


def exactly(points: dict[tuple[str, int], float]) -> Counter[Row]:
    """The store's points if each of these is there once."""
    return Counter((key, step, value) for (key, step), value in points.items())
