"""`orchestrate top`: where a run is and how it uses its machines, again and again."""

from __future__ import annotations

import sys
import time

import click

from orchestrator.cli.options import current_folder, run_argument
from orchestrator.cli.render.runs import live_line
from orchestrator.known_runs import find_run
from orchestrator.run_dir import RunDir
from orchestrator.submit.report import report_in
from orchestrator.submit.runs import ALIVE, RunStatus, statuses
from orchestrator.submit.wait import watch
from orchestrator.tracking.report.text import live_screen

LAST_S = 300.0
EVERY_S = 2.0
_MOST_SHARE = 0.05
"""Of a core, for reading the journals: those of a long run are read less often."""


@click.command("top")
@run_argument
def command(run: str) -> None:
    """Watch RUN: its step, loss, speed and end, and of the last five minutes its waiting for data, its GPUs, what
    tuning did and what holds it up. Until it ends, or Ctrl-C, which leaves it alone; out of a terminal, once."""
    run_dir = find_run(run, cwd=current_folder())
    status = statuses([run_dir])[0]
    if not sys.stdout.isatty() or status.state not in ALIVE:
        click.echo(screen(run_dir, status), nl=False)
        return
    _watch(run_dir)


def screen(run_dir: RunDir, status: RunStatus) -> str:
    """What there is to see now; of a run that has ended, over all its time."""
    since = time.time() - LAST_S if status.state in ALIVE else float("-inf")
    return live_screen(report_in(run_dir, status.state, since=since), live_line(status))


def _watch(run_dir: RunDir) -> None:
    from rich.live import Live
    from rich.text import Text

    due_at = 0.0
    with Live(auto_refresh=False) as live:
        for progress in watch(run_dir):
            began = time.monotonic()
            if began < due_at and not progress.ended:
                continue
            live.update(Text(screen(run_dir, progress.status).rstrip()), refresh=True)
            due_at = began + max(EVERY_S, (time.monotonic() - began) / _MOST_SHARE)
