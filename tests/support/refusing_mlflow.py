"""A small server that speaks enough of MLflow's REST API to refuse a point, or to fail as a broken one would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RUN_ID = "a" * 32


class RefusingMlflow:
    """Keeps the metrics it took; `refused_key` gets 400, and `failure` (status, text) every call."""

    def __init__(self, artifacts: Path) -> None:
        self.metrics: list[dict[str, Any]] = []
        self.tags: dict[str, str] = {}
        self.runs: list[str] = []
        self.refused_key: str | None = None
        self.failure: tuple[int, str] | None = None
        self._artifacts = artifacts

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | str]:
        if self.failure:
            return self.failure
        name = path.partition("/mlflow/")[2].partition("?")[0]
        return getattr(self, "_" + name.replace("/", "_").replace("-", "_"))(body)  # type: ignore[no-any-return]

    def _run(self, run_id: str = RUN_ID) -> dict[str, Any]:
        info: dict[str, Any] = {"run_id": run_id, "experiment_id": "1", "status": "RUNNING"}
        info["lifecycle_stage"] = "active"
        info |= {"start_time": 1 + self.runs.index(run_id), "artifact_uri": str(self._artifacts)}
        return {"info": info, "data": {"tags": [{"key": key, "value": value} for key, value in self.tags.items()]}}

    def _experiments_get_by_name(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"experiment": {"experiment_id": "1", "name": "digits", "lifecycle_stage": "active"}}

    def _runs_search(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"runs": [self._run(run_id) for run_id in self.runs]}

    def _runs_create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.runs.append(f"{len(self.runs):032x}")
        return 200, {"run": self._run(self.runs[-1])}

    def _runs_delete(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.runs.remove(body["run_id"])
        return 200, {}

    def _runs_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"run": self._run(self.runs[0])}

    def _runs_update(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"run_info": self._run(self.runs[0])["info"]}

    def _runs_log_batch(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        metrics = body.get("metrics", [])
        if any(metric["key"] == self.refused_key for metric in metrics):
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"no {self.refused_key}, please"}
        self.metrics += metrics
        self.tags |= {tag["key"]: tag["value"] for tag in body.get("tags", [])}
        return 200, {}


@contextmanager
def refusing_mlflow(artifacts: Path) -> Iterator[tuple[str, RefusingMlflow]]:
    """The server's URL, and the server."""
    mlflow = RefusingMlflow(artifacts)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = mlflow.answer(self.path, json.loads(body) if body else {})
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", mlflow
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
