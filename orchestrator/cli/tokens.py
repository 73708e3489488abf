"""`orchestrate tokens`: how many tokens a text holds, by the rules of thumb and by the model's own tokenizer."""

from __future__ import annotations

import click

from orchestrator.cli.options import json_option
from orchestrator.cli.render.text import json_text
from orchestrator.cli.render.tokens import token_screen
from orchestrator.submit.token_count import count_tokens


@click.command("tokens")
@click.argument("source", metavar="FILE|DATASET")
@click.option(
    "--tokenizer",
    metavar="NAME|PATH",
    help="A tokenizer.json, a folder with one, the id of one in the hub's cache, or a name of tiktoken's.",
)
@json_option
def command(source: str, tokenizer: str | None, as_json: bool) -> None:
    """Count the tokens of a text file, of a folder of them, or of a recipe's dataset (recipe.yaml:train).

    JSON lines, CSV and TSV count by their values that are text; any file may be gzipped. The error of each rule stands
    beside it when a tokenizer is given.
    """
    report = count_tokens(source, tokenizer=tokenizer)
    click.echo(json_text(report.as_json()) if as_json else token_screen(report), nl=as_json)
