"""A scheduler that does not answer for a while: asked again for a bounded time, and nothing is done twice by that.

A request whose answer was lost may have arrived. A controller that was frozen works on what has piled up in any order:
it can tell that it does not know a job, and take that very job in a second later (seen with Slurm 22.05). Therefore a
submission is sent again only after the scheduler has said twice, a pause apart, that it has no job with its mark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import Problem, SubmissionError
from orchestrator.submit.backend import JobState, Submission
from orchestrator.submit.commands import NoAnswer, Say
from orchestrator.units import format_seconds


@dataclass(frozen=True)
class Patience:
    """How long a scheduler is waited for, in seconds."""

    for_s: float = 180.0
    """No new try begins after so long."""
    pause_s: float = 5.0
    answer_s: float = 30.0
    """How long one submission may take before its answer counts as lost."""


class Desk(Protocol):
    """What is needed of a scheduler to hand one job over."""

    def send(self) -> str:
        """Submit it and return its id. Raises NoAnswer, or SubmissionError for a refusal."""

    def look(self) -> Mapping[str, JobState] | None:
        """The jobs that carry its mark; None where the scheduler does not answer."""

    def drop(self, job_id: str) -> None:
        """End a job that is there twice."""


class Retries:
    """The time there is for one request, and the one line of talk when the first try has got no answer."""

    def __init__(self, patience: Patience, say: Say) -> None:
        self.patience = patience
        self._say = say
        self._silent = True
        self._ends_at = time.monotonic() + patience.for_s

    @property
    def are_over(self) -> bool:
        return time.monotonic() >= self._ends_at

    def tell(self, request: str, why: str) -> None:
        """Say once what is waited for, and how to end that."""
        if self._silent:
            for_s = format_seconds(self.patience.for_s)
            self._say(f"Slurm does not answer ({why}): {request} is tried again for up to {for_s}; Ctrl-C ends that")
        self._silent = False

    def pause(self) -> None:
        """Wait before the next try."""
        time.sleep(self.patience.pause_s)


def hand_over(desk: Desk, submission: Submission, patience: Patience) -> str:
    """The id of the one job that `submission` has become.

    Raises SubmissionError: with `submission.in_doubt`, nobody knows whether a job exists; without, none does.
    """
    retries = Retries(patience, submission.say)
    was_lost = False
    while True:
        submission.before_try()
        submission.in_doubt = True
        try:
            job_id = desk.send()
        except NoAnswer as error:
            submission.in_doubt = error.may_have_arrived
            why = error.problems[0].what
        except SubmissionError:
            submission.in_doubt = False
            raise
        else:
            return _alone(desk, job_id, retries, submission.say) if was_lost else job_id
        retries.tell("the submission", why)
        retries.pause()
        if submission.in_doubt:
            was_lost = True
            jobs = _settled(desk, retries)
            if jobs is None:
                raise SubmissionError(doubt(submission, why))
            if jobs:
                submission.say("the submission had arrived")
                return _the_one(desk, jobs)
            submission.in_doubt = False
        if retries.are_over:
            fix = "nothing was submitted: try again when `squeue --me` answers"
            raise SubmissionError(Problem("sbatch", f"Slurm does not answer: {why}", fix))


def doubt(submission: Submission, why: str) -> Problem:
    """The two lines that are told where a job may exist of which nobody knows the id."""
    name = submission.name
    fix = f"its files stay; `orchestrate status {name}` asks again, and where it says prepared, resume submits it"
    return Problem(name, f"whether it has a job is unknown: {why}", fix)


def _settled(desk: Desk, retries: Retries) -> Mapping[str, JobState] | None:
    """The jobs with the mark; none only after two answers in a row, a pause apart; None without an answer in time."""
    empty = 0
    last_at = time.monotonic() + 3 * retries.patience.pause_s
    while True:
        jobs = desk.look()
        if jobs:
            return jobs
        empty = 0 if jobs is None else empty + 1
        if empty == 2:
            return jobs
        if retries.are_over and time.monotonic() > last_at:
            return None
        retries.pause()


def _alone(desk: Desk, job_id: str, retries: Retries, say: Say) -> str:
    """The job that is kept where an earlier try was lost: it may have arrived after all, late."""
    retries.pause()
    jobs = desk.look() or {}
    if len(jobs) < 2:
        return job_id
    say("an earlier try had arrived too: one of the two jobs is ended")
    return _the_one(desk, jobs)


def _the_one(desk: Desk, jobs: Mapping[str, JobState]) -> str:
    """The job that is kept. Any other is ended."""
    kept = first_of(jobs)
    for job_id in jobs:
        if job_id != kept:
            desk.drop(job_id)
    return kept


def first_of(jobs: Mapping[str, JobState]) -> str:
    """Of several jobs of one submission the one that counts: what has begun before what waits, then the oldest."""
    return min(jobs, key=lambda job_id: (jobs[job_id] == "pending", int(job_id)))


MOST_SIGNALS = 2
"""How often a running job may be told to save: torchrun bears a second signal while its ranks save, and no third."""


def ask_to_end(
    job_id: str,
    look: Callable[[], JobState | None],
    ask: Callable[[JobState], None],
    *,
    say: Say,
    patience: Patience,
) -> None:
    """Have a job end: `look` tells its state ("ended" when it is gone, None without an answer), `ask` asks it to.

    It is asked only right after the scheduler has answered, so that no requests pile up. Raises SubmissionError where
    the scheduler refuses, where the job has ended already, and where it is unknown whether it was asked.
    """
    retries = Retries(patience, say)
    num_lost = 0
    why = "squeue: no answer"
    while not (retries.are_over or num_lost == MOST_SIGNALS):
        state = look()
        if state == "ended":
            if num_lost:
                return None
            raise SubmissionError(Problem(f"job {job_id}", "is not in the queue any more", "nothing to cancel"))
        if state is not None:
            try:
                return ask(state)
            except NoAnswer as error:
                num_lost += error.may_have_arrived
                why = error.problems[0].what
        retries.tell("the request to end", why)
        retries.pause()
    what = "whether Slurm was asked to end it is unknown" if num_lost else "Slurm does not answer, and was not asked"
    fix = "a run at work reads that it is cancelled, and ends; else cancel it again when `squeue --me` answers"
    raise SubmissionError(Problem(f"job {job_id}", f"{what}: {why}", fix))
