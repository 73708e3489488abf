"""`orchestrate plan`: what a recipe would do, without Slurm, without torch, without writing anything."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import (
    cluster_option,
    current_folder,
    json_option,
    offline_option,
    recipe_argument,
    set_option,
)
from orchestrator.cli.render.plan import plan_screen, torchrun_commands
from orchestrator.cli.render.text import json_text
from orchestrator.cli.talk import say
from orchestrator.plan.plan import plan_to_json
from orchestrator.submit.prepare import Prepared, prepare


@click.command("plan")
@recipe_argument
@cluster_option
@set_option
@offline_option
@json_option
@click.option(
    "--show",
    type=click.Choice(["script", "torchrun", "recipe"]),
    help="Print instead: the job script as `submit` sends it, each node's torchrun command, or the resolved recipe.",
)
@click.option("--explain", is_flag=True, help="Print instead: each number's formula, why this one, and its source.")
@click.option("--shapes", is_flag=True, help="Print instead: allocations for it, best first, each with its start.")
def command(
    recipe: Path,
    profile: Path | None,
    overrides: tuple[str, ...],
    offline: bool,
    as_json: bool,
    show: str | None,
    explain: bool,
    shapes: bool,
) -> None:
    """Show what RECIPE would do on an allocation: batch, learning rate, horizon, warnings."""
    cwd = current_folder()
    if (show and (explain or shapes or as_json)) or (explain and shapes):
        raise click.UsageError("--show, --explain and --shapes each print something else, and --show has no --json")
    if shapes:
        from orchestrator.cli.shapes import print_shapes

        print_shapes(recipe, overrides=overrides, profile=profile, cwd=cwd, offline=offline, as_json=as_json)
        return
    prepared = prepare(recipe, overrides=overrides, profile=profile, cwd=cwd, offline=offline, say=say)
    if show == "script":
        click.echo(prepared.script, nl=False)
    elif show == "torchrun":
        click.echo(torchrun_commands(prepared.read.recipe, prepared.plan, prepared.run_dir, prepared.cluster), nl=False)
    elif show == "recipe":
        click.echo(prepared.read.stored, nl=False)
    elif explain:
        _explain(prepared, as_json=as_json)
    elif as_json:
        facts = {"plan": plan_to_json(prepared.plan), "run_dir": str(prepared.run_dir.path), "script": prepared.script}
        click.echo(json_text({**facts, "live": prepared.live.as_json() if prepared.live else None}))
    else:
        click.echo(_screen(prepared, cwd), nl=False)


def _screen(prepared: Prepared, cwd: Path) -> str:
    return plan_screen(prepared.plan, prepared.read.recipe, prepared.run_dir, cwd=cwd, live=prepared.live)


def _explain(prepared: Prepared, *, as_json: bool) -> None:
    from orchestrator.cli.render.explain import explain_screen
    from orchestrator.plan.explain import explain, explain_warnings

    numbers, warnings = explain(prepared.plan, prepared.read.recipe), explain_warnings(prepared.plan)
    if as_json:
        facts = {"numbers": [told.as_json() for told in numbers], "warnings": [told.as_json() for told in warnings]}
        click.echo(json_text(facts))
    else:
        click.echo(explain_screen(numbers, warnings), nl=False)
