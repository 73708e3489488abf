"""`orchestrate status`: the state of runs, each scheduler asked once."""

from __future__ import annotations

import click

from orchestrator.cli.options import current_folder, json_option
from orchestrator.cli.render.runs import status_table
from orchestrator.cli.render.text import json_text
from orchestrator.submit.runs import all_runs, find_run, statuses


@click.command("status")
@click.argument("runs", nargs=-1)
@json_option
def command(runs: tuple[str, ...], as_json: bool) -> None:
    """Show the state of RUNS, or of all runs under ./runs."""
    cwd = current_folder()
    found = [find_run(run, cwd=cwd) for run in runs] or all_runs(cwd)
    rows = statuses(found)
    if as_json:
        click.echo(json_text([row.as_json() for row in rows]))
    elif rows:
        click.echo(status_table(rows), nl=False)
    else:
        click.echo("no runs here yet: orchestrate submit RECIPE", err=True)
