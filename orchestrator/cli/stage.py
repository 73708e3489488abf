"""`orchestrate stage`: fetch what a recipe declares, once, and lock it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from orchestrator.cli.options import json_option, recipe_argument, set_option
from orchestrator.cli.render.stage import arrival, stage_facts, stage_screen
from orchestrator.cli.render.text import json_text
from orchestrator.cli.talk import say
from orchestrator.recipe.read import ReadRecipe, read_recipe
from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.assets.stage import Watch, stage


@click.command("stage")
@recipe_argument
@set_option
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Shared cache (default: $ORCHESTRATE_CACHE, else orchestrate/assets in the user's cache).",
)
@json_option
def command(recipe: Path, overrides: tuple[str, ...], cache: Path | None, as_json: bool) -> None:
    """Fetch the assets of RECIPE into a cache that its jobs can read, and write its lock file.

    What is there already is left alone, without asking any server. Mirrors are those of the recipe's env.mirrors.
    """
    read = read_recipe(recipe, overrides)
    with _watching(read) as watch:
        report = stage(read, recipe, cache_at(cache, os.environ), watch=watch, say=say)
    if as_json:
        click.echo(json_text(stage_facts(report)))
        return
    click.echo(stage_screen(report), nl=False)
    if report.assets and cache_at(None, os.environ).root != report.cache:
        click.echo(f"before you submit: export ORCHESTRATE_CACHE={report.cache}", err=True)


@contextlib.contextmanager
def _watching(read: ReadRecipe) -> Iterator[Watch]:
    """How arrivals are shown: a bar an asset on a terminal, else a line when one has begun and when it is here."""
    if not sys.stderr.isatty():
        yield _lines(read)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {name: bar.add_task(name, total=None, visible=False) for name in read.recipe.assets}
        yield lambda name, done, total: bar.update(tasks[name], completed=done, total=total, visible=True)


def _lines(read: ReadRecipe) -> Watch:
    shown: set[tuple[str, bool]] = set()

    def watch(name: str, done: int, total: int | None) -> None:
        whole = total is not None and done >= total
        if (name, whole) not in shown:
            shown.add((name, whole))
            click.echo(arrival(name, done, total), err=True)

    return watch
