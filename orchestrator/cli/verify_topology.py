"""`orchestrate verify-topology`: whether a recipe trains the same model on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from orchestrator.cli.options import cluster_option, json_option, recipe_argument, set_option
from orchestrator.cli.render.text import json_text
from orchestrator.cli.render.topology import verify_facts, verify_screen
from orchestrator.cli.talk import say
from orchestrator.plan.verification import PrecisionName
from orchestrator.submit.prepare import read_and_look
from orchestrator.submit.staged import asset_check, with_assets
from orchestrator.submit.topology import Wanted, verify_topology

EXIT_DOES_NOT_HOLD = 4


class _Worlds(click.ParamType[tuple[int, ...]]):
    """Numbers of ranks with commas between them."""

    name = "worlds"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            worlds = tuple(sorted({int(word) for word in value.split(",")}))
        except ValueError:
            worlds = (0,)
        if worlds[0] < 1:
            self.fail(f"{value!r}: write numbers of ranks, such as 1,2,3", param, ctx)
        return worlds


@click.command("verify-topology")
@recipe_argument
@click.option("--worlds", type=_Worlds(), default="1,2,3,4", show_default=True, help="Numbers of ranks to compare.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="Optimizer steps to compare.")
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(get_args(PrecisionName)),
    multiple=True,
    default=get_args(PrecisionName),
    show_default=True,
    help="Arithmetic to compare in; may be repeated.",
)
@cluster_option
@set_option
@json_option
def command(
    recipe: Path,
    worlds: tuple[int, ...],
    steps: int,
    precisions: tuple[PrecisionName, ...],
    profile: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Train RECIPE's first steps on many topologies of this machine's CPU, and compare each with one process.

    Exit code 4, with the reason, when losses, weights or samples differ by more than rounding. What torch draws in a
    forward pass, such as dropout, is drawn by sample here; in training it is torch's own. The model is not compiled.
    """
    staged = asset_check(recipe, thorough=False)
    cluster, read, _ = read_and_look(recipe, overrides=overrides, profile=profile, offline=True, more=(staged,))
    wanted = Wanted(worlds, steps, tuple(dict.fromkeys(precisions)))
    report = verify_topology(with_assets(read), cluster, wanted, say=say)
    click.echo(json_text(verify_facts(report)) if as_json else verify_screen(report), nl=as_json)
    return 0 if report.holds else EXIT_DOES_NOT_HOLD
