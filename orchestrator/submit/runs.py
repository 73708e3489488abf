"""The runs there are: found by name, and told what state each is in, with one question to each scheduler."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.files import decode_record, read_json, write_json
from orchestrator.known_runs import all_runs
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.submit.backend import Backend, JobState, backend_named
from orchestrator.submit.outage import first_of
from orchestrator.submit.run_files import JOB_FACTS, take_back_try
from orchestrator.tracking.records import each_step, numbers

RunState = Literal["prepared", "pending", "running", "done", "stopped", "failed", "lost", "unknown"]
"""lost: the job has ended and left no verdict; unknown: the scheduler does not answer, or knows nothing yet."""

ALIVE: frozenset[RunState] = frozenset({"pending", "running", "unknown"})
SETTLED_S = 120.0
"""So long after the last try, a scheduler that answers has taken in whatever reached it."""
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run without asking anybody but its own files and the scheduler."""

    run_dir: str
    name: str
    state: RunState
    job_id: str | None
    attempt: int | None
    step: int | None
    num_steps: int | None
    nodes: tuple[str, ...]
    reason: str
    metrics: dict[str, float | str]
    """Those that are no number are text: nan, inf, -inf."""
    mlflow_run_id: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def same_fingerprint(run_dir: RunDir) -> list[RunDir]:
    """Runs beside `run_dir` whose name has the same fingerprint: earlier submissions of the same science."""
    base = run_dir.path.name.partition(".")[0]
    return [run for run in all_runs(run_dir.path.parent.parent) if run.path.name.partition(".")[0] == base]


def statuses(runs: Sequence[RunDir]) -> list[RunStatus]:
    """The state of each run; each scheduler is asked once for all of its jobs."""
    states = job_states([run for run in runs if _verdict(run, _job(run)) is None])
    return [status_of(run, states.get(run, "unknown")) for run in runs]


def attempt_of_job(run: RunDir, job: dict[str, Any]) -> AttemptDir | None:
    """The last attempt that the run's present job has made."""
    last = run.last_attempt()
    return last if last is not None and last.number >= job.get("first_attempt", 0) else None


def job_states(runs: Sequence[RunDir]) -> dict[RunDir, JobState]:
    """What the schedulers say of the runs' present jobs; runs that were never handed over are left out."""
    groups: dict[tuple[str, str | None], dict[RunDir, str]] = {}
    found: dict[RunDir, JobState] = {}
    for run in runs:
        job = _job(run)
        slurm_conf = (read_json(run.cluster) or {}).get("slurm_conf")
        if job and job["job_id"] is None:
            found[run] = _look_for(run, job, backend_named(job["backend"], slurm_conf=slurm_conf))
        elif job:
            groups.setdefault((job["backend"], slurm_conf), {})[run] = job["job_id"]
    for (backend, slurm_conf), ids in groups.items():
        states = backend_named(backend, slurm_conf=slurm_conf).states(list(ids.values()))
        found |= {run: states[job_id] for run, job_id in ids.items()}
    return found


def _look_for(run: RunDir, job: dict[str, Any], backend: Backend) -> JobState:
    """The state of a job whose id could not be written down when it was submitted; it is, as soon as it is known.

    A request may lie unread in a controller that was frozen: only after SETTLED_S is it held that there is no job.
    """
    attempt = attempt_of_job(run, job)
    begun = (read_json(attempt.driver) or {}).get("job_id") if attempt else None
    jobs = backend.states([begun]) if begun else backend.find(job["mark"], since=job["started_at"])
    if jobs:
        job_id = first_of(jobs)
        write_json(run.job, {key: job[key] for key in JOB_FACTS} | {"job_id": job_id})
        return jobs[job_id]
    if jobs is None or time.time() - job["submitted_at"] < SETTLED_S:
        return "unknown"
    take_back_try(run, job["before"])
    return "ended"


def _job(run: RunDir) -> dict[str, Any]:
    job = read_json(run.job)
    return job if isinstance(job, dict) else {}


def _verdict(run: RunDir, job: dict[str, Any]) -> dict[str, Any] | None:
    attempt = attempt_of_job(run, job)
    verdict = read_json(attempt.verdict) if attempt else None
    return verdict if isinstance(verdict, dict) and verdict.get("final") else None


def status_of(run: RunDir, state: JobState) -> RunStatus:
    """What the run's files say, and its scheduler's word for the job where they say nothing of an end."""
    job = _job(run)
    verdict = _verdict(run, job)
    attempt = attempt_of_job(run, job)
    driver = (read_json(attempt.driver) if attempt else None) or {}
    plan = read_json(run.plan) or {}
    tail = _last_metrics(run)
    reached = tail.get("step") if verdict is None or verdict.get("step") is None else verdict["step"]
    return RunStatus(
        run_dir=str(run.path),
        name=run.path.name,
        state=_run_state(job, verdict, state, is_cancelled=run.cancel.exists()),
        job_id=job.get("job_id") or driver.get("job_id"),
        attempt=attempt.number if attempt else None,
        step=reached,
        num_steps=plan.get("schedule", {}).get("num_steps"),
        nodes=tuple(driver.get("nodes", ())),
        reason=verdict["reason"] if verdict else "",
        metrics=numbers((verdict or {}).get("metrics") or tail.get("values", {})),
        mlflow_run_id=(read_json(run.mlflow) or {}).get("run_id"),
    )


def _run_state(job: dict[str, Any], verdict: dict[str, Any] | None, state: JobState, *, is_cancelled: bool) -> RunState:
    """A job that was cancelled while it waited in the queue leaves no verdict, and is not lost."""
    if verdict is not None:
        outcome: RunState = verdict["outcome"]
        return outcome
    if not job:
        return "prepared"
    if state == "ended":
        return "stopped" if is_cancelled else "lost"
    return state


def _last_metrics(run: RunDir) -> dict[str, Any]:
    """The last training record of rank 0, from the end of its newest journal file: cost does not grow with the run."""
    files = sorted(run.journal.glob("*.rank-0.log"))
    if not files:
        return {}
    with files[-1].open("rb") as file:
        file.seek(max(0, files[-1].stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    told: list[dict[str, Any]] = []
    for record in filter(None, map(decode_record, reversed(lines))):
        told += [step for step in each_step(record) if "train/loss" in step.get("values", {})]
        if told:
            break
    return told[-1] if told else {}
