"""`orchestrate fit`: the largest micro-batch that fits a GPU, predicted without one."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import cluster_option, json_option, recipe_argument, set_option
from orchestrator.cli.render.fit import fit_facts, fit_screen
from orchestrator.cli.render.text import json_text
from orchestrator.cli.talk import say
from orchestrator.submit.fit import fit
from orchestrator.submit.prepare import read_and_look
from orchestrator.submit.snapshot import take_snapshot
from orchestrator.submit.staged import asset_check, with_assets
from orchestrator.units import parse_bytes


@click.command("fit")
@recipe_argument
@click.option("--gpu", "gpu", metavar="SIZE", help='Memory of one GPU, such as "80GB" (default: the profile\'s).')
@cluster_option
@set_option
@json_option
@click.option(
    "--fresh", is_flag=True, help="Simulate again what an earlier fit, or a plan with batch.micro: auto, has found."
)
def command(
    recipe: Path, gpu: str | None, profile: Path | None, overrides: tuple[str, ...], as_json: bool, fresh: bool
) -> None:
    """Predict the largest micro-batch of RECIPE that fits one GPU, by a simulation on this machine's CPU."""
    gpu_bytes = None if gpu is None else _size(gpu)
    staged = asset_check(recipe, thorough=False)
    cluster, read, _ = read_and_look(recipe, overrides=overrides, profile=profile, offline=True, more=(staged,))
    report = fit(
        with_assets(read),
        cluster,
        code_digest=take_snapshot(read.folder).without(recipe.name),
        recompute=(False, True),
        gpu_bytes=gpu_bytes,
        fresh=fresh,
        say=say,
    )
    click.echo(json_text(fit_facts(report)) if as_json else fit_screen(report), nl=as_json)


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint="--gpu") from None
