"""This machine as a backend: the job script runs here, in the background, in a session of its own.

A job's id is `local:<pid>:<start time>`: a pid that the kernel gave to somebody else later is not our job.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from orchestrator.errors import Problem, SubmissionError
from orchestrator.machine import process_start_time
from orchestrator.run_dir import RunDir
from orchestrator.submit.backend import JobState, Submission
from orchestrator.submit.commands import Say, find_program, missing_program, start_detached


class LocalBackend:
    """Runs `bash job.sh`; the driver takes every node for a group of processes on loopback."""

    name = "local"

    def check(self) -> None:
        if find_program("bash") is None:
            raise SubmissionError(missing_program("bash"))

    def submit(self, run_dir: RunDir, submission: Submission) -> str:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        argv = ("bash", str(run_dir.job_script))
        pid = start_detached(argv, log=run_dir.job_logs / "job-local.log", env=clean)
        started = process_start_time(pid)
        if started is None:
            raise SubmissionError(Problem(str(run_dir.job_script), "ended at once", f"see {run_dir.job_logs}"))
        return f"local:{pid}:{started}"

    def find(self, mark: str, *, since: float) -> Mapping[str, JobState] | None:
        return {}

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        return {job_id: "running" if _pid_of(job_id) is not None else "ended" for job_id in job_ids}

    def cancel(self, job_id: str, *, say: Say) -> None:
        pid = _pid_of(job_id)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)


def _pid_of(job_id: str) -> int | None:
    """The pid of a living local job, or None."""
    _, pid, started = job_id.split(":")
    return int(pid) if process_start_time(int(pid)) == int(started) else None
