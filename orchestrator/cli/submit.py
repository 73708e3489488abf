"""`orchestrate submit`: plan, write the run directory, hand it over, return."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import (
    cluster_option,
    current_folder,
    follow_option,
    json_option,
    offline_option,
    recipe_argument,
    set_option,
    wait_option,
)
from orchestrator.cli.render.plan import plan_screen
from orchestrator.cli.talk import say
from orchestrator.cli.waiting import report
from orchestrator.submit.prepare import prepare
from orchestrator.submit.start import start_run


@click.command("submit")
@recipe_argument
@cluster_option
@set_option
@offline_option
@wait_option
@follow_option
@json_option
@click.option("--soonest", is_flag=True, help="Take the allocation that starts (or ends) first: see plan --shapes.")
@click.option("--again", is_flag=True, help="Run it once more although the same recipe has run already.")
@click.option(
    "--prepare", "only_prepare", is_flag=True, help="Write the run directory only; start it later with `sbatch job.sh`."
)
def command(
    recipe: Path,
    profile: Path | None,
    overrides: tuple[str, ...],
    offline: bool,
    wait: bool,
    follow: bool,
    as_json: bool,
    soonest: bool,
    again: bool,
    only_prepare: bool,
) -> int:
    """Plan RECIPE, write its run directory and start it; returns at once unless told to wait."""
    cwd = current_folder()
    if soonest:
        from orchestrator.cli.shapes import soonest_overrides

        chosen = soonest_overrides(recipe, overrides=overrides, profile=profile, cwd=cwd, offline=offline)
        overrides = (*overrides, *chosen)
    prepared = prepare(recipe, overrides=overrides, profile=profile, cwd=cwd, offline=offline, thorough=True, say=say)
    screen = plan_screen(prepared.plan, prepared.read.recipe, prepared.run_dir, cwd=cwd, live=prepared.live)
    click.echo(screen, nl=False, err=True)
    start_run(prepared, cwd=cwd, again=again, only_prepare=only_prepare, say=say)
    return report(prepared.run_dir, waits=(wait or follow) and not only_prepare, follow=follow, as_json=as_json)
