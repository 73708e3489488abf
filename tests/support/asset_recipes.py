"""Recipes with assets, made of the tiny one."""

from __future__ import annotations

import os
from pathlib import Path

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
