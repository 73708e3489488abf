"""Run directories as the other rooms would leave them, made of plain JSON."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.documents import dump_yaml
from orchestrator.files import make_private_dir, write_atomically, write_json
from orchestrator.run_dir import AttemptDir, RunDir

RECIPE: dict[str, Any] = {
    "name": "digits",
    "seed": 7,
    "model": {"target": "model:make", "args": {"hidden": [64, 32]}},
    "batch": {"effective": 64},
    "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.999]},
}
PLAN: dict[str, Any] = {"effective_batch_size": 64, "topology": {"world_size": 2}, "peak_lr": 0.001}


def make_run_dir(
    path: Path,
    *,
    uri: str,
    experiment: str = "digits",
    recipe: Mapping[str, Any] = RECIPE,
    environment: Mapping[str, str] | None = None,
    created_at: float | None = None,
) -> RunDir:
    """What `submit` leaves: a run that no job has touched yet."""
    run = RunDir(make_private_dir(path))
    write_json(
        run.run,
        {
            "schema": 1,
            "uid": uuid.uuid4().hex,
            "name": "digits",
            "fingerprint": "f" * 64,
            "created_at": time.time() if created_at is None else created_at,
            "tracking": {"uri": uri, "experiment": experiment},
            "user": "ada",
            "cwd": str(path.parent),
            "git": {"commit": "c" * 40, "branch": "main", "dirty": False, "remote": None},
        },
    )
    write_atomically(run.recipe, dump_yaml(recipe))
    write_json(run.environment, dict(environment or {}))
    write_json(run.plan, PLAN)
    write_json(run.job, {"backend": "slurm", "job_id": "41", "submitted_at": time.time(), "script_sha256": "0" * 64})
    write_atomically(run.job_script, "#!/bin/bash\nexec python -m orchestrator.job RUN\n")
    write_atomically(make_private_dir(run.snapshot) / "pip-freeze.txt", "torch==2.13.0\n")
    return run


def start_attempt(run: RunDir, *, nodes: tuple[str, ...] = ("node1", "node2"), job_id: str = "41") -> AttemptDir:
    """What the driver and the supervisors leave while the next attempt runs."""
    last = run.last_attempt()
    attempt = run.attempt(last.number + 1 if last else 0)
    make_private_dir(attempt.logs)
    write_json(attempt.plan, PLAN)
    driver = {"job_id": job_id, "host": "login1", "pid": 1, "started_at": time.time(), "restart_count": 0}
    write_json(attempt.driver, driver | {"nodes": list(nodes), "differences": []})
    placed = [{"name": name, "node_rank": rank, "argv": ["torchrun"]} for rank, name in enumerate(nodes)]
    write_json(attempt.launch, {"attempt": attempt.number, "nodes": placed, "environment": {"OMP_NUM_THREADS": "1"}})
    for rank, name in enumerate(nodes):
        write_json(attempt.node(name), {"node": name, "node_rank": rank, "host": f"{name}.cluster", "state": "running"})
    write_atomically(attempt.rank_log(0), "first line\nlast line\n")
    return attempt


def end_attempt(
    attempt: AttemptDir, outcome: str = "done", *, final: bool = True, rank: int | None = None, **more: Any
) -> None:
    """The driver's verdict."""
    verdict: dict[str, Any] = {"outcome": outcome, "reason": f"it is {outcome}", "rank": rank, "node": None, "step": 1}
    verdict |= {"last_lines": [], "metrics": None, "final": final, "ended_at": time.time(), **more}
    write_json(attempt.verdict, verdict)
