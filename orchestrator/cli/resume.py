"""`orchestrate resume`: the same run, from its last checkpoint, on any allocation."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import (
    cluster_option,
    current_folder,
    follow_option,
    json_option,
    offline_option,
    run_argument,
    set_option,
    wait_option,
)
from orchestrator.cli.talk import say
from orchestrator.cli.waiting import report
from orchestrator.known_runs import find_run
from orchestrator.submit.start import resume_run


@click.command("resume")
@run_argument
@cluster_option
@set_option
@click.option(
    "--new-order",
    is_flag=True,
    help="Go on even if the order of samples has changed; --set may then change seed and datasets too.",
)
@offline_option
@wait_option
@follow_option
@json_option
def command(
    run: str,
    profile: Path | None,
    overrides: tuple[str, ...],
    new_order: bool,
    offline: bool,
    wait: bool,
    follow: bool,
    as_json: bool,
) -> int:
    """Go on with RUN from its last checkpoint.

    --set may change resources, loader, tuning, tracking, hang_timeout, preflight and batch.micro.
    """
    run_dir = find_run(run, cwd=current_folder())
    resume_run(run_dir, overrides=overrides, profile=profile, offline=offline, new_order=new_order, say=say)
    return report(run_dir, waits=wait or follow, follow=follow, as_json=as_json)
