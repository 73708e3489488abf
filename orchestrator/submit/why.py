"""Why a run is in the state it is in, and what shows it: read from its files, for people to be told."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.files import read_json
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.submit.attempts import attempts_of
from orchestrator.submit.output import log_files
from orchestrator.submit.run_files import read_identity
from orchestrator.submit.runs import RunStatus, attempt_of_job, statuses
from orchestrator.submit.tracker import mlflow_ui
from orchestrator.tracking.attempts import History

MOST_LINES = 5
_LONGEST_LINE = 200
_TAIL_BYTES = 16 * 1024
_FRAME = re.compile(r'\s+(?:File "(.+)", line \d+|\S.* \(([^()]+):\d+\)$)')
"""A frame as Python's faulthandler writes it, or as py-spy does; both write the innermost one first."""
_SEEN_IN = re.compile(r", see ([\w./-]+)")


@dataclass(frozen=True)
class Explanation:
    """What is known of why a run ended, or of what it is at; '' and None stand for what is not known."""

    status: RunStatus
    history: History
    cause: str | None = None
    """Of the last attempt's verdict, or of the end that came before any attempt."""
    reason: str = ""
    shown: tuple[str, ...] = ()
    """At most MOST_LINES lines that show it: the place first, then a stack or the last output."""
    rank: int | None = None
    node: str | None = None
    accelerator: str | None = None
    """cuda or cpu: what the last attempt ran on."""
    checkpoint_step: int | None = None
    """The step of the newest complete checkpoint that is there now."""
    word: str = "RUN"
    """What the verbs find the run by from the current folder; as a shell reads it, like `recipe`."""
    recipe: str = "RECIPE"
    """The file that was submitted, as it is named from the current folder."""
    scheduler: str = "local"
    """slurm or local: what its job is handed to."""
    tracked_at: str = ""
    """The command, or the address, that shows the run's curves."""
    has_output: bool = False
    """Whether the rank that `rank` names, or rank 0, has printed anything."""


def explain_run(run: RunDir, *, cwd: Path) -> Explanation:
    """What there is to say about `run`; its scheduler is asked once, and rank 0's journals are read whole."""
    status = statuses([run])[0]
    identity = read_identity(run)
    told = Explanation(
        status,
        attempts_of(run, status.state),
        checkpoint_step=run.newest_checkpoint_step(),
        word=shlex.quote(run.path.name if run.path == cwd / "runs" / run.path.name else str(run.path)),
        recipe=shlex.quote(_recipe_file(identity, cwd)),
        scheduler=(read_json(run.cluster) or {}).get("scheduler", "local"),
        tracked_at=mlflow_ui(identity["tracking"]["uri"]),
    )
    of_job = attempt_of_job(run, read_json(run.job) or {})
    last = run.last_attempt()
    verdict = (read_json(last.verdict) if last else None) or {}
    if status.state == "stopped" and (of_job is None or not verdict.get("final")):
        waited = "before it started" if of_job is None else "while it waited in the queue"
        return replace(told, cause="cancelled", reason=waited)
    if last is None or not verdict or (status.state == "lost" and of_job is None):
        return replace(told, shown=_driver_lines(run) if status.state == "lost" else ())
    attempt = told.history.attempts[-1]
    rank = verdict.get("rank")
    return replace(
        told,
        cause=attempt.cause,
        reason=attempt.reason,
        shown=tuple(_cut(line) for line in _lines(run, last, verdict))[:MOST_LINES],
        rank=rank,
        node=verdict.get("node"),
        accelerator=((read_json(last.plan) or {}).get("topology") or {}).get("accelerator"),
        has_output=last.rank_log(rank or 0).is_file(),
    )


def _lines(run: RunDir, attempt: AttemptDir, verdict: dict[str, Any]) -> Iterator[str]:
    """Where it happened, and what shows it: the stack that the reason names, else the last output of the rank."""
    place = _place(verdict)
    if place:
        yield place
    stack = _stack_file(attempt, verdict)
    if stack is None:
        yield from list(verdict.get("last_lines", ()))[-(MOST_LINES - 1) :]
        return
    yield f"it stood here, says {os.path.relpath(stack, run.path)}:"
    yield from _frames(stack.read_text(errors="replace"), run.snapshot_recipe)


def _frames(stack: str, folder: Path) -> list[str]:
    """The innermost frame of a stack that is in the user's `folder`, and those that called it; else all frames."""
    lines = [line.rstrip() for line in stack.splitlines() if line.strip()]
    frames = [(line, folder / (found[1] or found[2])) for line in lines if (found := _FRAME.match(line))]
    own = (i for i, (_, file) in enumerate(frames) if file.is_relative_to(folder) and file.is_file())
    return [line for line, _ in frames[next(own, 0) :]] or lines


def _place(verdict: dict[str, Any]) -> str:
    rank, node, step = verdict.get("rank"), verdict.get("node"), verdict.get("failed_step")
    parts = [f"rank {rank} on {node}" if rank is not None and node else f"rank {rank}" if rank is not None else node]
    parts += [None if step is None else f"at step {step}"]
    if left_out := verdict.get("left_out"):
        parts.append(f"the rest of the run does without {', '.join(left_out)}")
    return ", ".join(part for part in parts if part)


def _stack_file(attempt: AttemptDir, verdict: dict[str, Any]) -> Path | None:
    """The file in the attempt's directory that the reason of a hang names; None where there is none."""
    found = _SEEN_IN.search(str(verdict.get("reason", "")))
    if verdict.get("cause") != "hung" or found is None:
        return None
    path = (attempt.path / found[1].rstrip(".")).resolve()
    return path if path.is_relative_to(attempt.path.resolve()) and path.is_file() else None


def _driver_lines(run: RunDir) -> tuple[str, ...]:
    """The last lines of the job's own output, which may say why there is no verdict."""
    files = log_files(run, rank=None)
    if not files:
        return ()
    with files[-1].open("rb") as log:
        log.seek(max(0, log.seek(0, 2) - _TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    return tuple(_cut(line) for line in lines if line.strip())[-MOST_LINES:]


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 4]} ..."


def _recipe_file(identity: dict[str, Any], cwd: Path) -> str:
    """The recipe's path from `cwd`; older runs know its name alone."""
    path = identity.get("recipe_file")
    if not path:
        return str(identity.get("recipe") or "RECIPE")
    return str(Path(path).relative_to(cwd)) if Path(path).is_relative_to(cwd) else str(path)
