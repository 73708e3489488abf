"""What planning, submitting and resuming ask of a recipe's assets. A recipe without assets pays nothing for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cluster import Cluster
from orchestrator.errors import Problem, SubmissionError
from orchestrator.files import read_json
from orchestrator.recipe.read import ReadRecipe
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from orchestrator.survey import Check

if TYPE_CHECKING:
    from orchestrator.submit.assets.cache import AssetCache


def asset_check(recipe_path: Path, *, thorough: bool, run_dir: RunDir | None = None) -> Check[Recipe]:
    """Whether all assets are staged: their sizes, or, `thorough`, their content and use. Of a run: in its own cache."""

    def check(recipe: Recipe) -> Iterator[Problem]:
        if recipe.assets:
            from orchestrator.submit.assets.preflight import asset_problems

            code = recipe_path.parent if run_dir is None else run_dir.snapshot_recipe
            yield from asset_problems(recipe, recipe_path, code, thorough=thorough, cache=_cache(run_dir))

    return check


def with_assets(read: ReadRecipe, run_dir: RunDir | None = None) -> ReadRecipe:
    """`read` with the variables by which the job finds its assets, which have been checked."""
    if not read.recipe.assets:
        return read
    from orchestrator.submit.assets.environment import asset_environment

    code = read.folder if run_dir is None else run_dir.snapshot_recipe
    return replace(read, environment=asset_environment(read.recipe, _cache(run_dir), code) | read.environment)


def cache_warning(read: ReadRecipe, cluster: Cluster) -> str:
    """That the nodes of a job may not see the assets, as far as this machine can tell; '' where they may."""
    if not read.recipe.assets or cluster.scheduler != "slurm":
        return ""
    from orchestrator.submit.doctor.folder import unshared

    root = _cache(None).root
    try:
        unseen = unshared(root)
    except SubmissionError:
        return f"warning: {root}, the cache of assets, does not answer"
    return f"warning: the assets are {unseen}: {root}; ORCHESTRATE_CACHE names a shared folder" if unseen else ""


def keep_lock(read: ReadRecipe, run_dir: RunDir) -> None:
    """Copy the lock into a new run, where a resume looks for it."""
    if read.recipe.assets:
        from orchestrator.submit.assets.lock import lock_path

        target = lock_path(run_dir.recipe)
        shutil.copyfile(lock_path(Path(read.document.source)), target)
        target.chmod(0o600)


def _cache(run_dir: RunDir | None) -> AssetCache:
    """The cache that is set now; for a run that there is already, the one it was submitted with."""
    from orchestrator.submit.assets.cache import cache_at

    own = (read_json(run_dir.environment) or {}) if run_dir is not None else {}
    return cache_at(None, {**os.environ, **own})
