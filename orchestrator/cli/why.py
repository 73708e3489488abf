"""`orchestrate why`: why a run ended, what shows it, and what to do next."""

from __future__ import annotations

import click

from orchestrator.cli.options import current_folder, json_option, run_argument
from orchestrator.cli.render.text import json_text
from orchestrator.cli.render.why import why_facts, why_screen
from orchestrator.known_runs import find_run
from orchestrator.submit.why import explain_run


@click.command("why")
@run_argument
@json_option
def command(run: str, as_json: bool) -> None:
    """Say why RUN ended, which lines show it, which attempts it made, and the one thing to do next."""
    cwd = current_folder()
    told = explain_run(find_run(run, cwd=cwd), cwd=cwd)
    if as_json:
        click.echo(json_text(why_facts(told)))
    else:
        click.echo(why_screen(told), nl=False)
