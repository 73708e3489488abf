"""What the job's environment gets for the assets of a recipe: where they are, and that nobody shall ask a hub."""

from __future__ import annotations

from pathlib import Path

from orchestrator.recipe.assets import asset_variable
from orchestrator.recipe.check_assets import CACHE_VARIABLE
from orchestrator.recipe.schema import Recipe
from orchestrator.submit.assets.cache import AssetCache
from orchestrator.submit.assets.declared import HUB_KINDS, wants_of
from orchestrator.submit.assets.tokenizers import offline_environment


def asset_environment(recipe: Recipe, cache: AssetCache, folder: Path) -> dict[str, str]:
    """Variables for the job of a recipe whose assets have been verified; none where there are no assets.

    `folder` holds the recipe's code.
    """
    if not recipe.assets:
        return {}
    wanted = wants_of(recipe.assets, folder)
    variables = {CACHE_VARIABLE: str(cache.root)}
    if any(one.kind in HUB_KINDS for one in wanted.values()):
        variables |= offline_environment(cache)
    return variables | {asset_variable(name): str(cache.path_of(one)) for name, one in wanted.items()}
