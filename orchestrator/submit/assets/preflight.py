"""Before anything is submitted: is every asset staged, as it was locked, and does it work without a network?"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe.addresses import shown
from orchestrator.recipe.assets import Asset
from orchestrator.recipe.check_assets import whole_assets
from orchestrator.recipe.read import variables_of
from orchestrator.recipe.schema import Recipe
from orchestrator.submit.assets.cache import AssetCache, cache_at
from orchestrator.submit.assets.declared import HUB_KINDS, AssetFault, Wanted, wants_of
from orchestrator.submit.assets.fetch_hub import endpoint_of, has_token
from orchestrator.submit.assets.limits import ANSWER_S, reason, within
from orchestrator.submit.assets.lock import LockedAsset, lock_path, read_lock
from orchestrator.submit.assets.package import package_version
from orchestrator.submit.assets.tokenizers import tokenizer_problems


def asset_problems(
    recipe: Recipe, recipe_path: Path, code: Path, *, thorough: bool, cache: AssetCache | None = None
) -> Iterator[Problem]:
    """Every asset of `recipe` that a job could not use; `where` is its dotted key. Fetches nothing.

    `code` is the folder of the recipe's code, of a run its snapshot.

    Always: the lock, and the files' sizes. With `thorough`: the content of files that were touched since they were
    staged, each tokenizer's behaviour, and, of what is not staged, whether its hub answers (5 s at most).
    """
    usual = cache_at(None, os.environ)
    cache = cache or usual
    assets = whole_assets(recipe)
    wants = wants_of(assets, code)
    yield from _shadowed(assets, recipe_path.parent)
    stage = f"orchestrate stage {recipe_path}{'' if cache == usual else f' --cache {cache.root}'}"
    try:
        lock = read_lock(lock_path(recipe_path))
    except RecipeError as error:
        yield from (
            Problem("assets", f"{fault.where} {fault.what}", f"{fault.fix}: {stage}") for fault in error.problems
        )
        return
    good: dict[str, LockedAsset] = {}
    missing: dict[str, str] = {}
    for name in assets:
        what = _trouble(wants[name], lock.get(name), cache, thorough=thorough)
        if what:
            missing[name] = what
        else:
            good[name] = lock[name]
    environment = {**os.environ, **variables_of(recipe)}
    of_hub = [name for name in missing if assets[name].kind in HUB_KINDS]
    silent = _silence(environment) if thorough and of_hub else ""
    for name, what in missing.items():
        if silent and name in of_hub:
            fix = "set env.mirrors.huggingface, or HF_ENDPOINT, to a hub that answers; then run"
            yield Problem(f"assets.{name}", f"{what}, and {silent}", f"{fix}: {stage}")
        elif (
            name in of_hub
            and _wants_token(assets[name], wants[name], lock.get(name), cache)
            and not has_token(environment)
        ):
            fix = "hf auth login, or export HF_TOKEN; then run"
            yield Problem(
                f"assets.{name}", f"{what}, and it is handed out with a token: there is none", f"{fix}: {stage}"
            )
        else:
            yield Problem(f"assets.{name}", what, f"run: {stage}")
    if thorough:
        yield from tokenizer_problems(assets, good, cache, folder=recipe_path.parent)


def _trouble(wanted: Wanted, locked: LockedAsset | None, cache: AssetCache, *, thorough: bool) -> str:
    """Why the asset cannot be used as it is, in words; '' when it can."""
    if locked is None:
        return "not staged"
    if locked.wanted != wanted and (wanted.kind, wanted.source) == ("prepare", locked.wanted.source):
        return "not prepared as it is declared now: its code, its args or what it is made of has changed"
    if locked.wanted != wanted:
        return "not staged as it is declared now: the lock names another source or version"
    try:
        if wanted.kind == "package" and package_version(wanted) != locked.version:
            return f"{wanted.source} {package_version(wanted)} is installed, and {locked.version} was locked"
        return cache.trouble_with(locked, thorough=thorough)
    except AssetFault as fault:
        return fault.what


def _wants_token(asset: Asset, wanted: Wanted, locked: LockedAsset | None, cache: AssetCache) -> bool:
    """By the recipe's own word; else by what staging it has shown, of whichever version the lock names."""
    known, _ = cache.remembered(wanted)
    shown_before = (one.token for one in (locked, known) if one is not None and one.wanted.source == wanted.source)
    return any(shown_before) if asset.token is None else asset.token


def _silence(environment: Mapping[str, str]) -> str:
    """That the hub of this environment does not answer, and why; '' when it does, be it with a refusal."""
    try:
        endpoint = shown(endpoint_of(environment))
    except ValueError as error:
        return str(error)
    try:
        within(ANSWER_S, lambda: urllib.request.urlopen(f"{endpoint}/api/models?limit=1", timeout=ANSWER_S).close())
    except urllib.error.HTTPError as error:
        error.close()
    except TimeoutError:
        return f"{endpoint} does not answer within {ANSWER_S:g} s"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{endpoint} does not answer: {reason(error)}"
    return ""


def _shadowed(assets: Mapping[str, Asset], folder: Path) -> Iterator[Problem]:
    """Folders that would be taken for a hub's repository, since a library looks for a folder of that name first."""
    for name, asset in assets.items():
        repository = asset.tokenizer or asset.model
        for place in dict.fromkeys((folder.absolute(), Path.cwd())) if repository else ():
            shadow = place / str(repository)
            if shadow.is_dir():
                what = f"the folder {shadow} would be loaded instead of the hub's repository"
                yield Problem(f"assets.{name}.{asset.kind}", what, "move or rename that folder")
