"""The run directory as the login node writes it: what was prepared, byte for byte, and the job it was handed to."""

from __future__ import annotations

import getpass
import hashlib
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from orchestrator.cluster import Cluster
from orchestrator.errors import Problem, RunError
from orchestrator.files import make_private_dir, read_json, write_atomically, write_json
from orchestrator.plan.plan import Plan, plan_to_json
from orchestrator.recipe.read import ReadRecipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.backend import Submission
from orchestrator.submit.learnt import tell_store
from orchestrator.submit.prepare import Prepared
from orchestrator.submit.snapshot import git_facts, write_snapshot
from orchestrator.submit.staged import keep_lock
from orchestrator.submit.tuned import begin_tuned

JOB_FACTS = ("backend", "submitted_at", "script_sha256", "first_attempt")
"""What job.json says of every job beside its id; while that is not known, it says how to recognize the job too."""


def write_run(prepared: Prepared, *, cwd: Path) -> None:
    """Create the run directory with all that a job needs; on failure nothing of it stays."""
    run_dir = prepared.run_dir
    try:
        make_private_dir(run_dir.path.parent)
        make_private_dir(run_dir.path, exist_ok=False)
    except OSError as error:
        what = f"cannot be created: {error.strerror}"
        raise RunError(Problem(str(run_dir.path), what, "change to a directory you may write to")) from None
    try:
        for folder in (run_dir.snapshot, run_dir.journal, run_dir.forward, run_dir.checkpoints, run_dir.job_logs):
            make_private_dir(folder)
        write_snapshot(prepared.snapshot, run_dir)
        keep_lock(prepared.read, run_dir)
        write_json(run_dir.run, _identity(prepared, cwd))
        write_submission(run_dir, prepared.read, prepared.cluster, prepared.plan, prepared.script)
        tell_store(run_dir, prepared.read, prepared.cluster, code_digest=prepared.code_digest)
        begin_tuned(run_dir, prepared.read, prepared.cluster, code_digest=prepared.code_digest)
    except BaseException:
        shutil.rmtree(run_dir.path, ignore_errors=True)
        raise


def write_submission(run_dir: RunDir, read: ReadRecipe, cluster: Cluster, plan: Plan, script: str) -> None:
    """Write what one submission of a run consists of: the first one, or a resume of it."""
    write_atomically(run_dir.recipe, read.stored)
    write_json(run_dir.environment, read.environment)
    write_json(run_dir.cluster, cluster.model_dump(mode="json"))
    write_json(run_dir.plan, plan_to_json(plan))
    write_atomically(run_dir.job_script, script, mode=0o700)


def next_attempt(run_dir: RunDir) -> int:
    """The number of the attempt that a job would begin with; to be asked before there is one."""
    last = run_dir.last_attempt()
    return 0 if last is None else last.number + 1


def write_job(run_dir: RunDir, *, backend: str, job_id: str, first_attempt: int) -> None:
    """Write down which job the run was handed to, and which attempt is its first."""
    write_json(run_dir.job, _job(run_dir, backend, job_id, first_attempt))


def write_try(
    run_dir: RunDir, *, backend: str, first_attempt: int, submission: Submission, before: dict[str, Any] | None
) -> None:
    """Write down that a job may exist from now on, what it is recognized by, and the run's job `before` it."""
    marked = {"mark": submission.mark, "started_at": submission.started_at, "before": before}
    write_json(run_dir.job, _job(run_dir, backend, None, first_attempt) | marked)


def take_back_try(run_dir: RunDir, before: dict[str, Any] | None) -> None:
    """Nothing was submitted: job.json is as it was."""
    if before is None:
        run_dir.job.unlink(missing_ok=True)
    else:
        write_json(run_dir.job, before)


def _job(run_dir: RunDir, backend: str, job_id: str | None, first_attempt: int) -> dict[str, Any]:
    return {
        "backend": backend,
        "job_id": job_id,
        "submitted_at": time.time(),
        "script_sha256": hashlib.sha256(run_dir.job_script.read_bytes()).hexdigest(),
        "first_attempt": first_attempt,
    }


def _identity(prepared: Prepared, cwd: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "uid": uuid.uuid4().hex,
        "name": prepared.read.recipe.name,
        "fingerprint": prepared.fingerprint,
        "created_at": time.time(),
        "tracking": prepared.tracking,
        "user": getpass.getuser(),
        "cwd": str(cwd),
        "recipe": prepared.recipe_name,
        "recipe_file": str(Path(prepared.read.document.source).absolute()),
        "git": git_facts(prepared.snapshot.folder),
    }


def read_identity(run_dir: RunDir) -> dict[str, Any]:
    """What run.json says. Raises RunError for a directory that is not a run."""
    identity = read_json(run_dir.run)
    if not isinstance(identity, dict):
        what = "not a run directory: it has no run.json"
        raise RunError(Problem(str(run_dir.path), what, "see `orchestrate status`"))
    return identity
