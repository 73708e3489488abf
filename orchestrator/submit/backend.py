"""What a backend must do: take a job script, tell a job's state, and end a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from orchestrator.cluster import Cluster
from orchestrator.run_dir import RunDir

JobState = Literal["pending", "running", "ended", "unknown"]
"""`ended`: the scheduler says so; `unknown`: it does not know the job, or does not answer. Unknown is not failed."""


class Backend(Protocol):
    """A scheduler, or this machine."""

    name: str

    def check(self) -> None:
        """Raise SubmissionError when nothing could be submitted at all, before anything is written."""

    def submit(self, run_dir: RunDir) -> str:
        """Hand over the run's job script, byte for byte, and return the job's id. Raises SubmissionError.

        The recipe's own variables do not go this way: the driver reads them from the run directory.
        """

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """The state of each job, with one question for all of them."""

    def cancel(self, job_id: str) -> None:
        """Ask the job to save and end; a job that has not started yet just ends. Raises SubmissionError."""


def backend_for(cluster: Cluster) -> Backend:
    """The backend of a profile."""
    return backend_named(cluster.scheduler, slurm_conf=cluster.slurm_conf)


def backend_named(name: str, *, slurm_conf: str | None) -> Backend:
    """The backend by the name that job.json keeps."""
    if name == "local":
        from orchestrator.submit.local import LocalBackend

        return LocalBackend()
    from orchestrator.submit.slurm import SlurmBackend

    return SlurmBackend(slurm_conf)
