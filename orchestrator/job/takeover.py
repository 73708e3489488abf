"""`python -m orchestrator.job.takeover RUN ATTEMPT`: what a supervisor does when the driver's node is lost.

With --no-kill Slurm lets the job live on, without its batch script, until its time limit. So the run goes back to the
queue from here, once, and this job is ended. Exit code 0 when that is done or somebody else has done it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import LaunchError, OrchestratorError
from orchestrator.files import read_json, write_json
from orchestrator.job.commands import ask
from orchestrator.job.history import read_history
from orchestrator.job.job import read_job
from orchestrator.job.policy import Circumstances, next_move
from orchestrator.job.succession import TRIES_FOR_S, submit_successor
from orchestrator.job.verdict import Verdict
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.talk import tell

_ASK_S = 30.0
_PAUSE_S = 5.0


def take_over(run: RunDir, attempt: AttemptDir) -> None:
    """End `attempt` in its driver's place, which has been silent for long enough. Raises OrchestratorError."""
    if attempt.verdict.exists():
        return
    job, history = read_job(run, os.environ), read_history(run, before=attempt.number)
    head = (read_json(attempt.driver) or {})["nodes"][0]
    verdict = Verdict("failed", f"{head} is lost, and the driver with it", node=head, cause="node_lost")
    verdict = replace(verdict, checkpoint_step=run.newest_checkpoint_step())
    around = Circumstances(
        resumes=not job.recipe.is_plain_command,
        has_queue=True,
        checkpoint_step=history.checkpoint_step,
        is_cancelled=run.cancel.exists(),
    )
    move, then = next_move(verdict, history.verdicts, around), None
    try:
        if move.action == "requeue":
            successor = submit_successor(run, attempt, job_id=None)
            verdict, then = replace(verdict, successor=successor), f"job {successor}: {move.why}"
        elif move.why:
            verdict = replace(verdict, reason=f"{verdict.reason}: {move.why}")
    except LaunchError as error:
        verdict = replace(verdict, reason=f"{verdict.reason}: {error.problems[0].what}")
    write_json(attempt.verdict, verdict.as_json(ended_at=time.time(), then=then))
    tell(f"takeover: {verdict.reason}; {then or 'the end'}")
    _end_job(job.job_id)


def _end_job(job_id: str) -> None:
    """Cancel this job: without its batch script it would go on until its time limit."""
    give_up_at = time.monotonic() + TRIES_FOR_S
    while True:
        try:
            ask(("scancel", job_id), timeout_s=_ASK_S)
            return
        except LaunchError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_PAUSE_S)


def main(arguments: Sequence[str]) -> int:
    """Take over the attempt of the run directory that are the two arguments."""
    run = RunDir(Path(arguments[0]).absolute())
    try:
        take_over(run, run.attempt(int(arguments[1])))
    except OrchestratorError as error:
        tell(f"takeover: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
