"""Whether a recipe trains the same on every topology, asked of real ranks on this machine, in a process of its own."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster import Cluster
from orchestrator.errors import LaunchError, Problem
from orchestrator.files import read_json, write_json
from orchestrator.plan.plan import Plan, plan_to_json
from orchestrator.plan.verification import MovedByRounding, PrecisionName, Reason, Row, VerifyReport
from orchestrator.recipe.read import ReadRecipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.commands import Say, watch_command
from orchestrator.submit.prepare import plan_for
from orchestrator.submit.snapshot import copy_code, take_snapshot

TIMEOUT_S = 1800
_TALK = "verify: "


@dataclass(frozen=True)
class Wanted:
    """What to compare."""

    worlds: tuple[int, ...]
    steps: int
    precisions: tuple[PrecisionName, ...]


def verify_topology(read: ReadRecipe, cluster: Cluster, wanted: Wanted, *, say: Say) -> VerifyReport:
    """Train the recipe's first steps on every topology of the matrix, and compare.

    Raises RecipeError for a command and where one process cannot train the recipe, and LaunchError for a process that
    ends without an answer.
    """
    if read.recipe.command:
        what = "what a command trains is its own affair, and cannot be compared"
        read.refuse([Problem("command", what, "give model, datasets and loss in its place")])
    began = time.monotonic()
    snapshot = take_snapshot(read.folder)
    plan = plan_for(read, cluster, code_digest=snapshot.without(Path(read.document.source).name), say=say)
    with tempfile.TemporaryDirectory(prefix="orchestrate-verify-") as folder:
        run = RunDir(Path(folder))
        copy_code(snapshot, run.snapshot_recipe)
        write_json(run.path / "request.json", _request(read, plan, run, wanted))
        answer = _answer(read, run, say)
    return VerifyReport(
        name=read.recipe.name,
        effective_batch_size=plan.batch.effective_batch_size,
        steps=min(wanted.steps, plan.schedule.num_steps),
        reference=answer["reference"],
        rows=tuple(Row(**row) for row in answer["rows"]),
        moved=tuple(MovedByRounding(*moved) for moved in answer["moved"]),
        reasons=tuple(Reason(**reason) for reason in answer["reasons"]),
        seconds=time.monotonic() - began,
    )


def _request(read: ReadRecipe, plan: Plan, run: RunDir, wanted: Wanted) -> dict[str, Any]:
    return {
        "recipe": read.stored,
        "source": "recipe.yaml",
        "plan": plan_to_json(plan),
        "folder": str(run.path),
        "worlds": wanted.worlds,
        "steps": wanted.steps,
        "precisions": wanted.precisions,
    }


def _answer(read: ReadRecipe, run: RunDir, say: Say) -> dict[str, Any]:
    """What the process answers; its talk is handed on, and the last other line it says is kept for when it fails."""
    tail: list[str] = []

    def on_line(line: str) -> None:
        if line.startswith(_TALK):
            say(line)
        elif line.strip():
            tail[:] = [line.strip()]

    request, answer_path = run.path / "request.json", run.path / "answer.json"
    argv = (sys.executable, "-m", "orchestrator.worker.verify", str(request), str(answer_path))
    # One thread for each rank, whatever library has threads; and no GPU of this machine.
    alone = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    env = {**os.environ, **read.environment, **alone, "CUDA_VISIBLE_DEVICES": ""}
    code = watch_command(argv, timeout_s=TIMEOUT_S, env=env, on_line=on_line)
    answer: dict[str, Any] = read_json(answer_path) or {}
    read.refuse(Problem(told["where"], told["what"], told["fix"]) for told in answer.pop("problems", ()))
    if not answer:
        why = f"no answer within {TIMEOUT_S} s" if code is None else f"it ended with status {code}"
        fix = "compare fewer --worlds or --steps" if code is None else ""
        raise LaunchError(Problem("verify-topology", ": ".join([why, *tail]), fix))
    return answer
