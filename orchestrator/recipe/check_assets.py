"""What assets must be, each in itself and beside the job's variables. Pure; a problem's `where` is a dotted key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from orchestrator.errors import Problem, did_you_mean
from orchestrator.recipe.addresses import holds_secret, is_printable, shown, split
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
    "wheel": ("sha256", "what sha256sum prints for the wheel, 64 hex digits"),
    "git": ("commit", "the full commit sha that git rev-parse prints, 40 hex digits"),
    "prepare": ("of", "the names of the assets that it is made of, as a list"),
}


def assets_are_whole(recipe: Recipe) -> Iterator[Problem]:
    """Each asset is one thing from one place, pinned, with no key of another kind."""
    for name, asset in recipe.assets.items():
        yield from _faults(f"assets.{name}", asset)


def prepared_of_others(recipe: Recipe) -> Iterator[Problem]:
    """What is prepared is made of assets that are there, and fetched."""
    fetched = [name for name, asset in recipe.assets.items() if getattr(asset, "prepare", None) is None]
    for name, asset in recipe.assets.items():
        for index, source in enumerate(asset.of if readable(asset, "of") else ()):
            if source not in fetched:
                what = f"{source!r} is prepared itself" if source in recipe.assets else f"there is no asset {source!r}"
                fix = did_you_mean(source, fetched) if fetched else "declare what it is made of"
                yield Problem(f"assets.{name}.of.{index}", what, fix)


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
    if readable(asset, needed) and getattr(asset, needed) in (None, ()):
        yield Problem(
            f"{where}.{needed}", f"{needed} is missing: a {kind} asset needs it", f"write {needed}: {meaning}"
        )
    for key, kinds in BELONGS_TO.items():
        if kind not in kinds and getattr(asset, key, None) not in (None, (), {}):
            yield Problem(
                f"{where}.{key}", f"belongs to {' and '.join(kinds)} assets, and this is a {kind} asset", "take it away"
            )
    yield from _reachable(where, asset)


def _reachable(where: str, asset: Asset) -> Iterator[Problem]:
    """Addresses and paths that can be used at all."""
    address = asset.url if asset.url is not None else asset.git
    key = "git" if asset.url is None else "url"
    if address is not None and holds_secret(address):
        fix = "take it away: git asks its credential helpers, and a file can be fetched by hand for a file:// URL"
        yield Problem(f"{where}.{key}", "holds a name or password, which would be stored and shown", fix)
    elif asset.url is not None and not is_printable(asset.url):
        what = "holds white space or a control character, as it is or by its %-code"
        yield Problem(f"{where}.url", what, "write %20 for a space, and take the others away")
    elif asset.url is not None and not _is_read(asset.url):
        what = f"{shown(asset.url)!r} is not a URL that is read"
        yield Problem(f"{where}.url", what, "write https://..., or file:///...")
    elif asset.git is not None and not _is_cloned(asset.git):
        what = f"{shown(asset.git)!r} is not a repository's URL"
        yield Problem(f"{where}.git", what, "write https://..., or a path")
    for key in ("path", "files"):
        found: str | tuple[str, ...] | None = getattr(asset, key, None)
        paths = (found,) if isinstance(found, str) else found or ()
        if not all(map(stays_inside, paths)):
            yield Problem(
                f"{where}.{key}", "leads to no file inside what it is taken from", "write relative paths, without .."
            )


def stays_inside(path: str) -> bool:
    """Whether a path leads to something below the folder from which it counts."""
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in path


def _is_read(url: str) -> bool:
    parts = split(url)
    return parts is not None and (
        parts.scheme == "file" or (parts.scheme in ("http", "https") and bool(parts.hostname))
    )


def _is_cloned(url: str) -> bool:
    """Nothing that git would take for an option or a program of its own; an address with a scheme must be whole."""
    whole = "://" not in url or split(url) is not None
    return bool(url) and url.isprintable() and not url.startswith("-") and "::" not in url and whole


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
