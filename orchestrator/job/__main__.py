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

from orchestrator.errors import OrchestratorError, RunError
from orchestrator.files import write_json
from orchestrator.job.attempt import new_attempt, read_job, run_attempt
from orchestrator.job.forwarder import Forwarder, forwarder_command
from orchestrator.job.policy import Move, next_move
from orchestrator.job.verdict import Verdict
from orchestrator.processes import hold_signals
from orchestrator.run_dir import AttemptDir, RunDir

FAILED = 4


def drive(run: RunDir, *, forwarder: Sequence[str]) -> int:
    """Run attempts of `run` to the last one's verdict, beside a forwarder started by that command; the exit code.

    Raises RunError when there cannot even be an attempt directory.
    """
    hold_signals()
    attempt: AttemptDir | None = new_attempt(run)
    tracker = Forwarder(run, forwarder)
    history: tuple[Verdict, ...] = ()
    while attempt is not None:
        verdict = _verdict_on(run, attempt, tracker)
        move = next_move(verdict, history)
        if move.action == "stop" and move.why:
            verdict = replace(verdict, reason=f"{verdict.reason}: {move.why}")
        history = (*history, verdict)
        attempt = _ended(run, attempt, verdict, move)
    if not tracker.drain():
        print("driver: MLflow has not got everything; `orchestrate sync` brings the rest", flush=True)
    return 0 if verdict.outcome in ("done", "stopped") else FAILED


def _ended(run: RunDir, attempt: AttemptDir, verdict: Verdict, move: Move) -> AttemptDir | None:
    """Write the attempt's verdict down, its end being known; the attempt that comes after it, if one does."""
    try:
        following = new_attempt(run) if move.action == "relaunch" else None
    except RunError as error:
        following, verdict = None, replace(verdict, reason=f"{verdict.reason}: {one_line(error)}")
    then = None if following is None else f"attempt {following.path.name}: {move.why}"
    write_json(attempt.verdict, verdict.as_json(ended_at=time.time(), then=then))
    print(f"driver: {verdict.outcome}: {verdict.reason}", *verdict.last_lines, sep="\n    ", flush=True)
    if then is not None:
        print(f"driver: {then}", flush=True)
    return following


def _verdict_on(run: RunDir, attempt: AttemptDir, tracker: Forwarder) -> Verdict:
    """The verdict on the attempt; on this driver, when it could not start one."""
    try:
        return run_attempt(read_job(run, os.environ), attempt, tracker)
    except OrchestratorError as error:
        return Verdict("failed", one_line(error))
    except Exception as error:
        traceback.print_exc()
        return Verdict("failed", f"a bug in the driver: {type(error).__name__}: {error}")


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
