"""Staying with a run until it ends: what --wait and --follow do, for `submit` and `resume`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from orchestrator.cli.render.runs import outcome, progress_line, submitted
from orchestrator.cli.render.text import json_text
from orchestrator.run_dir import RunDir
from orchestrator.submit.output import LogFollower
from orchestrator.submit.runs import RunStatus
from orchestrator.submit.start import facts_of
from orchestrator.submit.wait import watch

EXIT_FAILED = 4
TALK_EVERY_S = 10.0
Look = Callable[[RunStatus], None]


def report(run_dir: RunDir, *, waits: bool, follow: bool, as_json: bool) -> int:
    """Tell where the run is, and stay with it where that is wanted; the exit code."""
    facts = facts_of(run_dir)
    if not (as_json and waits):
        click.echo(json_text(facts) if as_json else submitted(facts), nl=as_json)
    return wait_for(run_dir, facts=facts, follow=follow, as_json=as_json) if waits else 0


def wait_for(run_dir: RunDir, *, facts: dict[str, Any], follow: bool, as_json: bool) -> int:
    """Stay until the run has ended; 0 when it is done, else 4. Ctrl-C leaves the run alone."""
    try:
        with _talking(run_dir, follow=follow) as look:
            for progress in watch(run_dir):
                look(progress.status)
    except KeyboardInterrupt:
        name = run_dir.path.name
        click.echo(f"\nthe run goes on: orchestrate logs -f {name}, orchestrate cancel {name}", err=True)
        raise
    status = progress.status
    if as_json:
        ending = {"outcome": status.state, "reason": status.reason, "metrics": status.metrics}
        click.echo(json_text(facts | facts_of(run_dir) | ending))
    else:
        click.echo(outcome(status), nl=False)
    return 0 if status.state == "done" else EXIT_FAILED


@contextlib.contextmanager
def _talking(run_dir: RunDir, *, follow: bool) -> Iterator[Look]:
    """How progress is shown: rank 0's output, a live bar on a terminal, or a line now and then."""
    if follow:
        follower = LogFollower(run_dir, rank=0)
        yield lambda status: click.echo(follower.new_text(), nl=False, err=True)
        click.echo(follower.new_text(), nl=False, err=True)
    elif sys.stderr.isatty():
        with _live_bar() as look:
            yield look
    else:
        yield _lines_now_and_then()


def _lines_now_and_then() -> Look:
    shown: dict[str, Any] = {"at": float("-inf"), "state": None}

    def look(status: RunStatus) -> None:
        if status.state != shown["state"] or time.monotonic() - shown["at"] > TALK_EVERY_S:
            shown.update(at=time.monotonic(), state=status.state)
            click.echo(progress_line(status), err=True)

    return look


@contextlib.contextmanager
def _live_bar() -> Iterator[Look]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def look(status: RunStatus) -> None:
            text = progress_line(status).partition(": ")[2]
            bar.update(task, description=text, completed=status.step or 0, total=status.num_steps)

        yield look
