"""`orchestrate resume`: the same run, from its last checkpoint, on any allocation."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import (
    cluster_option,
    follow_option,
    json_option,
    offline_option,
    run_argument,
    set_option,
    wait_option,
)
from orchestrator.cli.render.runs import submitted
from orchestrator.cli.render.text import json_text
from orchestrator.submit.runs import find_run
from orchestrator.submit.start import facts_of, resume_run


@click.command("resume")
@run_argument
@cluster_option
@set_option
@offline_option
@wait_option
@follow_option
@json_option
def command(
    run: str,
    profile: Path | None,
    overrides: tuple[str, ...],
    offline: bool,
    wait: bool,
    follow: bool,
    as_json: bool,
) -> int:
    """Go on with RUN from its last checkpoint; --set may change resources, loader, tracking and batch.micro."""
    run_dir = find_run(run, cwd=Path.cwd())
    resume_run(
        run_dir, overrides=overrides, profile=profile, offline=offline, say=lambda line: click.echo(line, err=True)
    )
    facts = facts_of(run_dir)
    if not (as_json and (wait or follow)):
        click.echo(json_text(facts) if as_json else submitted(facts), nl=as_json)
    if not (wait or follow):
        return 0
    from orchestrator.cli.waiting import wait_for

    return wait_for(run_dir, facts=facts, follow=follow, as_json=as_json)
