"""Choosing an allocation: what `plan --shapes` prints, and what `submit --soonest` asks for instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli.render.shapes import shapes_json, shapes_screen, soonest_line
from orchestrator.cli.render.text import json_text
from orchestrator.cli.talk import say
from orchestrator.submit.shapes.table import as_overrides, list_shapes, soonest


def print_shapes(
    recipe: Path, *, overrides: Sequence[str], profile: Path | None, cwd: Path, offline: bool, as_json: bool
) -> None:
    """Print the shapes of a recipe, best first."""
    table = list_shapes(recipe, overrides=overrides, profile=profile, cwd=cwd, offline=offline, say=say)
    click.echo(json_text(shapes_json(table)) if as_json else shapes_screen(table), nl=as_json)


def soonest_overrides(
    recipe: Path, *, overrides: Sequence[str], profile: Path | None, cwd: Path, offline: bool
) -> tuple[str, ...]:
    """The overrides that ask for the shape that starts first; which one it is, and why, is said on stderr."""
    table = list_shapes(recipe, overrides=overrides, profile=profile, cwd=cwd, offline=offline, say=say)
    chosen = soonest(table)
    say(soonest_line(table, chosen))
    return as_overrides(chosen.shape)
