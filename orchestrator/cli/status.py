"""`orchestrate status`: the state of runs, each scheduler asked once."""

from __future__ import annotations

import click

from orchestrator.cli.options import current_folder, json_option
from orchestrator.cli.render.attempts import attempts_screen, slow_ranks
from orchestrator.cli.render.runs import status_table
from orchestrator.cli.render.text import json_text
from orchestrator.known_runs import all_runs, find_run
from orchestrator.submit.attempts import attempts_of
from orchestrator.submit.runs import statuses


@click.command("status")
@click.argument("runs", nargs=-1)
@json_option
def command(runs: tuple[str, ...], as_json: bool) -> None:
    """Show the state of RUNS, or of all runs under ./runs; of one named alone, its slow ranks and attempts too."""
    cwd = current_folder()
    found = [find_run(run, cwd=cwd) for run in runs] or all_runs(cwd)
    rows = statuses(found)
    history = attempts_of(found[0], rows[0].state) if len(runs) == 1 else None
    if as_json:
        more = {} if history is None else history.as_json()
        click.echo(json_text([row.as_json() | more for row in rows]))
    elif rows:
        click.echo(status_table(rows), nl=False)
        if history is not None and (slow := slow_ranks(history, rows[0].state)):
            click.echo("\n" + "\n".join(slow))
        if history is not None and len(history.attempts) > 1:
            click.echo("\n" + attempts_screen(history, rows[0].state), nl=False)
    else:
        click.echo("no runs here yet: orchestrate submit RECIPE", err=True)
