"""`orchestrate schema`: what an editor needs to complete and check a recipe while it is written."""

from __future__ import annotations

from typing import cast

import click

from orchestrator.cli.render.text import json_text
from orchestrator.recipe.json_schema import Kind, json_schema


@click.command("schema")
@click.argument("kind", type=click.Choice(["recipe", "profile"]), default="recipe")
def command(kind: str) -> None:
    """Print the JSON Schema of a recipe, or of a cluster profile, for editors.

    \b
    Write it beside your recipes, and name it in the first line of each:
      orchestrate schema > recipe.schema.json
      # yaml-language-server: $schema=recipe.schema.json
    """
    click.echo(json_text(json_schema(cast(Kind, kind))))
