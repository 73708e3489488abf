"""What assets must be, each in itself and beside the job's variables. Pure; a problem's `where` is a dotted key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import SplitResult, urlsplit

from orchestrator.errors import Problem
from orchestrator.recipe.assets import BELONGS_TO, KINDS, Asset, AssetKind, asset_variable
from orchestrator.recipe.schema import Recipe
from orchestrator.survey import readable

CACHE_VARIABLE = "ORCHESTRATE_CACHE"
HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""What the job's environment gets for assets from a hub."""

_NEEDS: dict[AssetKind, tuple[str, str]] = {
    "tokenizer": ("revision", "the full commit sha that the repository shows in its history, 40 hex digits"),
    "model": ("revision", "the full commit sha that the repository shows in its history, 40 hex digits"),
    "url": ("sha256", "what sha256sum prints for the file, 64 hex digits"),
    "package": ("path", "the file's path as `pip show -f` lists it"),
    "git": ("commit", "the full commit sha that git rev-parse prints, 40 hex digits"),
}


def assets_are_whole(recipe: Recipe) -> Iterator[Problem]:
    """Each asset is one thing from one place, pinned, with no key of another kind."""
    for name, asset in recipe.assets.items():
        yield from _faults(f"assets.{name}", asset)


def whole_assets(recipe: Recipe) -> dict[str, Asset]:
    """Those of a recipe's assets, by name, with which nothing is wrong in itself."""
    read = {name: asset for name, asset in recipe.assets.items() if readable(asset, *Asset.model_fields)}
    return {name: asset for name, asset in read.items() if not any(_faults(name, asset))}


def _faults(where: str, asset: Asset) -> Iterator[Problem]:
    """What could not be read is passed over; without its kind nothing more is said of an asset."""
    given = [kind for kind in KINDS if getattr(asset, kind, None) is not None]
    if len(given) < 2 and not readable(asset, *KINDS):
        return
    if len(given) != 1:
        found = "none" if not given else " and ".join(given)
        fix = "keep one of them" if given else f"write one of them below {where}"
        yield Problem(where, f"one of {', '.join(KINDS)} is wanted, found {found}", fix)
        return
    (kind,) = given
    needed, meaning = _NEEDS[kind]
    if readable(asset, needed) and getattr(asset, needed) is None:
        yield Problem(
            f"{where}.{needed}", f"{needed} is missing: a {kind} asset needs it", f"write {needed}: {meaning}"
        )
    for key, kinds in BELONGS_TO.items():
        if kind not in kinds and getattr(asset, key, None) not in (None, ()):
            yield Problem(
                f"{where}.{key}", f"belongs to {' and '.join(kinds)} assets, and this is a {kind} asset", "take it away"
            )
    yield from _reachable(where, asset)


def _reachable(where: str, asset: Asset) -> Iterator[Problem]:
    """Addresses and paths that can be used at all."""
    address = asset.url if asset.url is not None else asset.git
    key = "git" if asset.url is None else "url"
    if address is not None and _holds_secret(address):
        fix = "take it away: git asks its credential helpers, and a file can be fetched by hand for a file:// URL"
        yield Problem(f"{where}.{key}", "holds a name or password, which would be stored and shown", fix)
    elif asset.url is not None and _split(asset.url).scheme not in ("http", "https", "file"):
        yield Problem(f"{where}.url", f"{asset.url!r} is not a URL that is read", "write https://..., or file:///...")
    elif asset.git is not None and (not asset.git or asset.git.startswith("-") or "::" in asset.git):
        yield Problem(f"{where}.git", f"{asset.git!r} is not a repository's URL", "write https://..., or a path")
    for key in ("path", "files"):
        found: str | tuple[str, ...] | None = getattr(asset, key, None)
        paths = (found,) if isinstance(found, str) else found or ()
        if any(not path or path.startswith("/") or ".." in PurePosixPath(path).parts for path in paths):
            yield Problem(f"{where}.{key}", "leads out of what it is taken from", "write relative paths, without ..")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _holds_secret(url: str) -> bool:
    """A password, or over http a lone name too, since tokens are passed so; ssh://git@host holds none."""
    parts = _split(url)
    return parts.password is not None or (parts.scheme in ("http", "https") and parts.username is not None)


def asset_names_are_free(recipe: Recipe) -> Iterator[Problem]:
    """No two assets share a variable, and the recipe's own variables are none of theirs."""
    taken: dict[str, str] = {}
    for name in recipe.assets:
        variable = asset_variable(name)
        if variable in taken:
            what = f"the variable {variable} is that of {taken[variable]} already"
            yield Problem(f"assets.{name}", what, "give each its own name")
        taken.setdefault(variable, name)
    if not recipe.assets:
        return
    reserved = dict.fromkeys((CACHE_VARIABLE, *taken), "assets sets this variable")
    if any(asset.tokenizer or asset.model for asset in whole_assets(recipe).values()):
        reserved.update(dict.fromkeys(HUB_VARIABLES, "assets from a hub set this variable"))
    for name in recipe.env.variables:
        if name in reserved:
            yield Problem(f"env.variables.{name}", reserved[name], "take it away")
