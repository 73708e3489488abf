"""`python -m orchestrator.job RUN`: the driver of one job, on its first node.

Exit codes: 0 done or stopped after a save, 2 where nothing can be written down, 4 failed. However it ends, the
attempt has a verdict: an error of ours before the start and a bug in the driver are verdicts too.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import LaunchError, OrchestratorError, Problem, RunError
from orchestrator.files import write_json
from orchestrator.job.attempt import run_attempt
from orchestrator.job.beginning import new_attempt, require_alone
from orchestrator.job.forwarder import Forwarder, forwarder_command
from orchestrator.job.history import History, read_history
from orchestrator.job.job import circumstances, read_job
from orchestrator.job.policy import Circumstances, Move, next_move
from orchestrator.job.succession import submit_successor
from orchestrator.job.verdict import Verdict
from orchestrator.processes import hold_signals
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.talk import tell

FAILED = 4
_WRITES_AGAIN_AFTER_S = (1, 2, 4, 8, 16, 0)


def drive(run: RunDir, *, forwarder: Sequence[str]) -> int:
    """Run attempts of `run` to the last one's verdict, beside a forwarder started by that command; the exit code.

    Raises RunError when there cannot even be an attempt directory.
    """
    hold_signals()
    require_alone(run)
    attempt: AttemptDir | None = new_attempt(run, after=run.last_attempt())
    tracker = Forwarder(run, forwarder)
    while attempt is not None:
        history = read_history(run, before=attempt.number)
        verdict, around = _verdict_on(run, attempt, tracker, history)
        move = next_move(verdict, history.verdicts, around)
        if move.action == "stop" and move.why:
            verdict = replace(verdict, reason=f"{verdict.reason}: {move.why}")
        attempt = _ended(run, attempt, replace(verdict, left_out=move.without), move)
    if not tracker.drain():
        tell("driver: MLflow has not got everything; `orchestrate sync` brings the rest")
    return 0 if verdict.outcome in ("done", "stopped") else FAILED


def _ended(run: RunDir, attempt: AttemptDir, verdict: Verdict, move: Move) -> AttemptDir | None:
    """Write the attempt's verdict down, its end being known; the attempt that comes after it in this job, if one does.

    A successor is in the queue before that: Slurm may end this job within seconds. Where a supervisor has taken over,
    while nobody reached this node, its verdict stands and there is nothing more to do.
    """
    if attempt.verdict.exists():
        tell(f"driver: attempt {attempt.path.name} has its verdict already: somebody has taken over")
        return None
    following, then = None, None
    try:
        if move.action == "relaunch":
            following = new_attempt(run, after=attempt)
            then = f"attempt {following.path.name}: {move.why}"
        elif move.action == "requeue":
            unknown_to_slurm = () if verdict.cause == "node_lost" else move.without
            job_id = os.environ["SLURM_JOB_ID"]
            successor = submit_successor(run, attempt, job_id=job_id, without=unknown_to_slurm)
            verdict = replace(verdict, successor=successor)
            then = f"job {successor}: {move.why}"
    except OrchestratorError as error:
        verdict = replace(verdict, reason=f"{verdict.reason}: {one_line(error)}")
    except OSError as error:
        verdict = replace(verdict, reason=f"{verdict.reason}: {error.filename}: {error.strerror}")
    _write_verdict(attempt, verdict, then)
    tell("\n    ".join((f"driver: {verdict.outcome}: {verdict.reason}", *verdict.last_lines)))
    if then is not None:
        tell(f"driver: {then}")
    return following


def _write_verdict(attempt: AttemptDir, verdict: Verdict, then: str | None) -> None:
    """On a file system that has no room now there may be some in a while: others of its users make it."""
    for seconds in _WRITES_AGAIN_AFTER_S:
        try:
            write_json(attempt.verdict, verdict.as_json(ended_at=time.time(), then=then))
            return
        except OSError as error:
            tell(f"driver: {attempt.verdict} cannot be written: {error.strerror}")
            time.sleep(seconds)


def _verdict_on(
    run: RunDir, attempt: AttemptDir, tracker: Forwarder, history: History
) -> tuple[Verdict, Circumstances]:
    """The verdict on the attempt, and what another one could have; on this driver, when it could not start one."""
    around = Circumstances(resumes=False)
    try:
        job = read_job(run, os.environ)
        around = circumstances(job, history)
        verdict = run_attempt(job, attempt, tracker, history)
    except OrchestratorError as error:
        verdict = Verdict("failed", one_line(error), cause="launch" if isinstance(error, LaunchError) else "user_code")
    except Exception as error:
        if not attempt.path.is_dir():
            what = "was removed while the run was at work"
            raise RunError(Problem(str(run.path), what, "submit the recipe anew")) from None
        tell(traceback.format_exc())
        if not isinstance(error, OSError):
            around = Circumstances(resumes=False)
        verdict = Verdict("failed", f"a bug in the driver: {type(error).__name__}: {error}")
    around = replace(around, is_cancelled=run.cancel.exists())
    return replace(verdict, checkpoint_step=run.newest_checkpoint_step()), around


def one_line(error: OrchestratorError) -> str:
    """All problems of an error in one line: where, what, and what to do."""
    return "; ".join(", ".join(str(problem).split("\n    ")) for problem in error.problems)


def main(arguments: Sequence[str]) -> int:
    """Drive the run directory that is the one argument."""
    if len(arguments) != 1:
        print("usage: python -m orchestrator.job RUN_DIR", file=sys.stderr)
        return RunError.exit_code
    run = RunDir(Path(arguments[0]).absolute())
    try:
        return drive(run, forwarder=forwarder_command(run))
    except OrchestratorError as error:
        print(f"driver: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
