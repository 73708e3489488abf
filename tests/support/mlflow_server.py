"""A real MLflow server on loopback: started, killed and started again on one port, over one sqlite database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.ports import free_port

START_TIMEOUT_S = 120


class MlflowServer:
    """One worker, no job runner; `url` and the database `db` stay the same from start to start."""

    def __init__(self, folder: Path, db: Path | None = None) -> None:
        self.folder = folder
        self.db = db or folder / "store" / "server.db"
        self.db.parent.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = (sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.db}")
        options = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command + options, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < give_up_at, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """SIGKILL it with all its processes, as a crash would. Does nothing when it does not run."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
