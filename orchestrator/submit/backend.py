"""What a backend must do: take a job script, tell a job's state, and end a job."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from orchestrator.cluster import Cluster
from orchestrator.run_dir import RunDir
from orchestrator.submit.commands import Say

JobState = Literal["pending", "running", "ended", "unknown"]
"""`ended`: the scheduler says so, or has forgotten it; `unknown`: it does not answer, or never heard of the job.

Unknown is not failed.
"""


def _nothing() -> None:
    """Do nothing."""


@dataclass
class Submission:
    """One handing-over of a run, however many tries it takes."""

    name: str
    """Of the run."""
    say: Say
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What its job is recognized by where the scheduler's answer was lost."""
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch: no job with its mark is older."""
    before_try: Callable[[], None] = _nothing
    """Called before each try: what must be written down before a job can exist."""
    in_doubt: bool = False
    """A job may exist whose id is not written down."""


class Backend(Protocol):
    """A scheduler, or this machine."""

    name: str

    def check(self) -> None:
        """Raise SubmissionError when nothing could be submitted at all, before anything is written."""

    def submit(self, run_dir: RunDir, submission: Submission) -> str:
        """Hand over the run's job script, byte for byte, and return the job's id. Raises SubmissionError.

        When it raises, `submission.in_doubt` tells whether there may be a job all the same.
        The recipe's own variables do not go this way: the driver reads them from the run directory.
        """

    def find(self, mark: str, *, since: float) -> Mapping[str, JobState] | None:
        """The jobs of a submission, none older than `since` (seconds since the epoch); None without an answer."""

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """The state of each job, with one question for all of them."""

    def cancel(self, job_id: str, *, say: Say) -> None:
        """Ask the job to save and end; a job that has not started yet just ends; `say` hears what is waited for.

        Raises SubmissionError where it is refused, and where it is unknown whether the job was asked.
        """


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
