"""The recipe in a folder of its own, in an environment that names a hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.recipe.read import read_recipe
from tests.recipes.workplace import NOT_COPIED, Workplace
from tests.support.worlds import ROOT

RECIPE = ROOT / "recipes" / "closed_network"
NAME = "closed_network.yaml"


def place_at(folder: Path, *, hub: str) -> Workplace:
    """For a `folder` that is not there yet."""
    shutil.copytree(RECIPE, folder, ignore=NOT_COPIED)
    env = {"HF_ENDPOINT": hub, "HF_TOKEN": "", "HF_HUB_OFFLINE": ""}
    return Workplace(folder, NAME, env=env)


def repository(asset: str) -> tuple[str, str]:
    """The name and the commit that the recipe asks a hub for."""
    declared = read_recipe(RECIPE / NAME).recipe.assets[asset]
    return str(declared.tokenizer or declared.model), str(declared.revision)
