"""Recipes with assets, made of the tiny one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import RecipeError
from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.assets.stage import StageReport, stage
from tests.support.command_line import TINY
from tests.support.hub_mirror import COMMIT, HubMirror

WORDS = f"words: {{tokenizer: acme/words, revision: {COMMIT}}}"


def recipe_with(folder: Path, *assets: str, mirror: HubMirror | None = None, env: str = "") -> Path:
    """The tiny recipe, in `folder`, with these lines as its assets and the mirror as its hub."""
    for file in TINY.parent.iterdir():
        if file.suffix in (".py", ".yaml"):
            (folder / file.name).write_bytes(file.read_bytes())
    lines = [TINY.read_text(), "assets:", *(f"  {line}" for line in assets)]
    lines += [f"env: {env or f'{{mirrors: {{huggingface: {mirror.url}}}}}'}"] if mirror or env else []
    recipe = folder / "tiny.yaml"
    recipe.write_text("\n".join(lines) + "\n")
    return Path(os.path.relpath(recipe))


def staged(recipe: Path) -> StageReport:
    """Stage a recipe's assets into this test's own cache."""
    return stage(read_recipe(recipe), recipe, cache_at(None, os.environ), watch=lambda name, done, total: None)


def refusal(recipe: Path) -> str:
    """What staging it is refused with."""
    with pytest.raises(RecipeError) as caught:
        staged(recipe)
    return str(caught.value)
