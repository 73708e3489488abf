"""`orchestrate plan`: what a recipe would do, without Slurm, without torch, without writing anything."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import render
from orchestrator.cli.options import cluster_option, json_option, recipe_argument, set_option
from orchestrator.plan.plan import plan_to_json
from orchestrator.submit.prepare import prepare


@click.command("plan")
@recipe_argument
@cluster_option
@set_option
@json_option
@click.option(
    "--show",
    type=click.Choice(["script", "torchrun", "recipe"]),
    help="Print instead: the job script as `submit` sends it, each node's torchrun command, or the resolved recipe.",
)
def command(recipe: Path, profile: Path | None, overrides: tuple[str, ...], as_json: bool, show: str | None) -> None:
    """Show what RECIPE would do on an allocation: batch, learning rate, horizon, warnings."""
    cwd = Path.cwd()
    prepared = prepare(recipe, overrides=overrides, profile=profile, cwd=cwd)
    if show == "script":
        click.echo(prepared.script, nl=False)
    elif show == "torchrun":
        click.echo(render.torchrun_commands(prepared.read.recipe, prepared.plan, prepared.run_dir), nl=False)
    elif show == "recipe":
        click.echo(prepared.read.stored, nl=False)
    elif as_json:
        facts = {"plan": plan_to_json(prepared.plan), "run_dir": str(prepared.run_dir.path), "script": prepared.script}
        click.echo(render.as_json(facts))
    else:
        click.echo(render.plan_screen(prepared.plan, prepared.read.recipe, prepared.run_dir, cwd=cwd), nl=False)
