"""Fetching what a recipe declares, and preparing files of it, once, in the shared cache; locking what that came to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import Problem, RunError
from orchestrator.files import write_atomically
from orchestrator.recipe.assets import Asset
from orchestrator.recipe.read import ReadRecipe
from orchestrator.submit.assets.cache import AssetCache, locked_file, permissions_of
from orchestrator.submit.assets.declared import AssetFault, NoAnswer, Wanted, wants_of
from orchestrator.submit.assets.fetch_file import fetch_file
from orchestrator.submit.assets.fetch_git import fetch_git
from orchestrator.submit.assets.fetch_hub import fetch_hub
from orchestrator.submit.assets.fetch_wheel import PLACE as PACKAGE_INDEX
from orchestrator.submit.assets.fetch_wheel import fetch_wheel
from orchestrator.submit.assets.lock import LockedAsset, lock_path, lock_text, read_lock
from orchestrator.submit.assets.package import package_root, package_version
from orchestrator.submit.assets.prepare import prepare
from orchestrator.submit.assets.tokenizers import tokenizer_problems
from orchestrator.submit.commands import Say, silent

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


def stage(read: ReadRecipe, recipe_path: Path, cache: AssetCache, *, watch: Watch, say: Say = silent) -> StageReport:
    """Have every asset in `cache`, and the lock beside the recipe; what is there already is left alone.

    Raises RecipeError with what is wrong with each asset, and then the lock stays as it was; RunError where the cache
    or the lock cannot be written.
    """
    path = lock_path(recipe_path)
    before = read_lock(path)
    wants = wants_of(read.recipe.assets, read.folder)
    stager = _Stager(cache, read.folder, {**os.environ, **read.environment}, watch, say)
    found: dict[str, Staged] = {}
    problems: list[Problem] = []
    try:
        for name, wanted in wants.items():
            asset = read.recipe.assets[name]
            if any(source not in found for source in asset.of):
                continue  # what is wrong with it has been told
            sources = {source: found[source].path for source in asset.of}
            try:
                found[name] = stager.staged(name, asset, wanted, sources, before.get(name))
            except AssetFault as fault:
                problems.append(Problem(f"assets.{name}.{fault.key}", fault.what, fault.fix))
        staged = tuple(found[name] for name in read.recipe.assets if name in found)
        locked = {one.name: one.locked for one in staged}
        problems += tokenizer_problems(read.recipe.assets, locked, cache, folder=recipe_path.parent)
        read.refuse(problems)
        text = lock_text(locked)
        if staged and not (path.exists() and path.read_text() == text):
            write_atomically(path, text, mode=0o666)
    except OSError as error:
        problem = Problem(str(error.filename or cache.root), f"cannot be written: {error.strerror}", "see --cache")
        raise RunError(problem) from None
    return StageReport(path, cache.root, staged)


@dataclass(frozen=True)
class _Stager:
    """What all assets of a recipe share: where they go, what their processes are told, and which places are down."""

    cache: AssetCache
    code: Path
    environment: Mapping[str, str]
    watch: Watch
    say: Say
    down: dict[str, NoAnswer] = field(default_factory=dict)

    def staged(
        self, name: str, asset: Asset, wanted: Wanted, sources: Mapping[str, Path], before: LockedAsset | None
    ) -> Staged:
        """`sources` has the paths of what it is prepared of.

        Raises AssetFault where it cannot be had, or is not what was locked `before`.
        """
        found = in_package(wanted) if wanted.kind == "package" else self._good(wanted)
        fetched = found is None
        if found is None:
            with permissions_of(self.cache.root), self.cache.alone(wanted, lambda: self._waits(name)):
                found = self._good(wanted)  # the other process may have brought it
                fetched = found is None
                if found is None:
                    found = self._made(name, asset, wanted, sources)
                    _refuse_change(before, found)
                    self.cache.remember(found)
        _refuse_change(before, found)
        if before is not None and before.wanted == wanted:  # a mirror may hand out freely what the hub does not
            found = replace(found, token=found.token or before.token)
        return Staged(name, found, self.cache.path_of(wanted), fetched)

    def _good(self, wanted: Wanted) -> LockedAsset | None:
        """What is staged already, and as it was."""
        found, _ = self.cache.remembered(wanted)
        return None if found is None or self.cache.trouble_with(found, thorough=True) else found

    def _waits(self, name: str) -> None:
        self.say(f"{name}: another process is fetching it; waiting for that one")

    def _made(self, name: str, asset: Asset, wanted: Wanted, sources: Mapping[str, Path]) -> LockedAsset:
        """Prepared of its sources, or fetched from the place that has it, unless that was down a moment ago."""
        if asset.prepare is not None:
            return self._prepared(name, asset, wanted, sources)
        place = _place_of(asset)
        if place in self.down:
            raise AssetFault(asset.kind, f"not tried: {self.down[place].what}", self.down[place].fix)
        try:
            return self._from_its_place(name, asset, wanted)
        except NoAnswer as fault:
            self.down[place] = fault
            raise

    def _prepared(self, name: str, asset: Asset, wanted: Wanted, sources: Mapping[str, Path]) -> LockedAsset:
        def say(line: str) -> None:
            self.say(f"{name}: {line}")

        say(f"prepared by {asset.prepare}")
        return prepare(asset, wanted, sources, self.cache, code=self.code, environment=self.environment, say=say)

    def _from_its_place(self, name: str, asset: Asset, wanted: Wanted) -> LockedAsset:
        def progress(done: int, total: int | None) -> None:
            self.watch(name, done, total)

        if asset.url is not None:
            return fetch_file(asset.url, wanted, self.cache, progress)
        if asset.wheel is not None:
            return fetch_wheel(wanted, self.cache, self.environment, progress)
        if asset.git is None:
            return fetch_hub(wanted, self.cache, self.environment, progress)
        found = fetch_git(asset.git, wanted, self.cache, self.environment, progress)
        if any(file.path == ".gitmodules" for file in found.files):
            self.say(f"{name}: its submodules are not fetched: declare each as an asset of its own")
        return found


def _place_of(asset: Asset) -> str:
    """What is down for all that come from it."""
    if asset.url is not None:
        return urlsplit(asset.url).netloc
    return PACKAGE_INDEX if asset.wheel is not None else asset.git or "the hub"


def _refuse_change(before: LockedAsset | None, found: LockedAsset) -> None:
    """Raise AssetFault where the same version was locked with other content; a package may be another by now."""
    if before is None or before.wanted != found.wanted or before.version != found.version:
        return
    changed = set(before.files) ^ set(found.files)
    if changed:
        what = f"{min(changed).path} is not what was locked, although nothing else has changed"
        fix = "find out why; take the lock file away to trust it as it is now"
        if found.wanted.kind == "prepare":
            fix = f"other versions of libraries, or chance in the code? {fix}"
        raise AssetFault(found.wanted.kind, what, fix)


def in_package(wanted: Wanted) -> LockedAsset:
    """A package's file as it is installed now. Raises AssetFault."""
    version = package_version(wanted)
    file = locked_file(package_root(wanted), wanted.select[0])
    if wanted.revision not in ("", file.sha256):
        what = f"{wanted.source} {version} holds a {file.path} with the sha256 {file.sha256}"
        raise AssetFault("sha256", what, "write that sha256 if it is the file you mean, else install another version")
    return LockedAsset(wanted, (file,), version)
