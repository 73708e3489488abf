"""Fetching what a recipe declares, once, into the shared cache, and locking what it turned out to be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import Problem, RunError
from orchestrator.files import write_atomically
from orchestrator.recipe.assets import Asset
from orchestrator.recipe.read import ReadRecipe
from orchestrator.submit.assets.cache import AssetCache, locked_file, permissions_of
from orchestrator.submit.assets.declared import AssetFault, Progress, Wanted, wanted_of
from orchestrator.submit.assets.fetch_file import fetch_file
from orchestrator.submit.assets.fetch_git import fetch_git
from orchestrator.submit.assets.fetch_hub import fetch_hub
from orchestrator.submit.assets.lock import LockedAsset, lock_path, lock_text, read_lock
from orchestrator.submit.assets.package import package_root, package_version
from orchestrator.submit.assets.tokenizers import tokenizer_problems

Watch = Callable[[str, int, int | None], None]
"""Hears an asset's name, how many bytes of it are here, and of how many, where that is known."""


@dataclass(frozen=True)
class Staged:
    """One asset: what it turned out to be, where it lies, and whether it had to be fetched."""

    name: str
    locked: LockedAsset
    path: Path
    fetched: bool

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.locked.files)


@dataclass(frozen=True)
class StageReport:
    """All assets of a recipe, and the lock file that says so."""

    lock: Path
    cache: Path
    assets: tuple[Staged, ...]


def stage(read: ReadRecipe, recipe_path: Path, cache: AssetCache, *, watch: Watch) -> StageReport:
    """Have every asset in `cache`, and the lock beside the recipe; what is there already is left alone.

    Raises RecipeError with what is wrong with each asset, and then the lock stays as it was; RunError where the cache
    or the lock cannot be written.
    """
    path = lock_path(recipe_path)
    before = read_lock(path)
    environment = {**os.environ, **read.environment}
    staged: list[Staged] = []
    problems: list[Problem] = []
    try:
        for name, asset in read.recipe.assets.items():
            try:
                staged.append(_staged(name, asset, before.get(name), cache, environment, watch))
            except AssetFault as fault:
                problems.append(Problem(f"assets.{name}.{fault.key}", fault.what, fault.fix))
        locked = {one.name: one.locked for one in staged}
        problems += tokenizer_problems(read.recipe.assets, locked, cache, folder=recipe_path.parent)
        read.refuse(problems)
        text = lock_text(locked)
        if staged and not (path.exists() and path.read_text() == text):
            write_atomically(path, text, mode=0o666)
    except OSError as error:
        problem = Problem(str(error.filename or cache.root), f"cannot be written: {error.strerror}", "see --cache")
        raise RunError(problem) from None
    return StageReport(path, cache.root, tuple(staged))


def _staged(
    name: str,
    asset: Asset,
    before: LockedAsset | None,
    cache: AssetCache,
    environment: Mapping[str, str],
    watch: Watch,
) -> Staged:
    wanted = wanted_of(asset)
    if wanted.kind == "package":
        found: LockedAsset | None = in_package(wanted)
    else:
        found, _ = cache.remembered(wanted)
    fetched = found is None or bool(cache.trouble_with(found, thorough=True))
    if found is None or fetched:
        with permissions_of(cache.root):
            found = _fetched(asset, cache, environment, lambda done, total: watch(name, done, total))
            _refuse_change(before, found)
            cache.remember(found)
    else:
        _refuse_change(before, found)
    if before is not None and before.wanted == wanted:  # a mirror may hand out freely what the hub does not
        found = replace(found, token=found.token or before.token)
    return Staged(name, found, cache.path_of(wanted), fetched)


def _refuse_change(before: LockedAsset | None, found: LockedAsset) -> None:
    """Raise AssetFault where the same version was locked with other content; a package may be another by now."""
    if before is None or before.wanted != found.wanted or before.version != found.version:
        return
    changed = set(before.files) ^ set(found.files)
    if changed:
        what = f"{min(changed).path} is not what was locked, although nothing else has changed"
        raise AssetFault(found.wanted.kind, what, "find out why; take the lock file away to trust it as it is now")


def _fetched(asset: Asset, cache: AssetCache, environment: Mapping[str, str], progress: Progress) -> LockedAsset:
    wanted = wanted_of(asset)
    if asset.url is not None:
        return fetch_file(asset.url, wanted, cache, progress)
    if asset.git is not None:
        return fetch_git(asset.git, wanted, cache, environment)
    return fetch_hub(wanted, cache, environment, progress)


def in_package(wanted: Wanted) -> LockedAsset:
    """A package's file as it is installed now. Raises AssetFault."""
    version = package_version(wanted)
    file = locked_file(package_root(wanted), wanted.select[0])
    if wanted.revision not in ("", file.sha256):
        what = f"{wanted.source} {version} holds a {file.path} with the sha256 {file.sha256}"
        raise AssetFault("sha256", what, "write that sha256 if it is the file you mean, else install another version")
    return LockedAsset(wanted, (file,), version)
