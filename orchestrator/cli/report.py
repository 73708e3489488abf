"""`orchestrate report`: how well a run used its machines, and what holds it up."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import current_folder, json_option, run_argument
from orchestrator.cli.render.text import json_text
from orchestrator.errors import Problem, RunError
from orchestrator.files import write_atomically
from orchestrator.known_runs import find_run
from orchestrator.submit.report import report_on
from orchestrator.tracking.report.page import report_page
from orchestrator.tracking.report.text import report_facts, report_screen


@click.command("report")
@run_argument
@json_option
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as one page, with pictures.")
def command(run: str, as_json: bool, html: Path | None) -> None:
    """Say how well RUN used its machines: its time in steps, in waiting for data and of its GPUs, what tuning did and
    saved, what holds it up, and the one thing to do next."""
    told = report_on(find_run(run, cwd=current_folder()))
    if html is not None:
        write_page(html, report_page(told))
    if as_json:
        click.echo(json_text(report_facts(told)))
    else:
        click.echo(report_screen(told), nl=False)


def write_page(path: Path, page: str) -> None:
    """Raises RunError where it cannot be written."""
    try:
        write_atomically(path, page)
    except OSError as error:
        fix = "name a file in a folder that you may write to"
        raise RunError(Problem(str(path), f"cannot be written: {error.strerror}", fix)) from None
