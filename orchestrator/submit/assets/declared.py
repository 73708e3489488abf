"""An asset as fetchers, lock and cache speak of it: what is wanted, from where, in which version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.recipe.addresses import shown
from orchestrator.recipe.assets import Asset, AssetKind
from orchestrator.submit.assets.own_code import digest_of_code

HUB_KINDS = ("tokenizer", "model")
FILE_KINDS = ("url", "package", "wheel")
Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived, and with all there will be, where that is known."""


@dataclass(frozen=True)
class Wanted:
    """What decides the content of an asset: equal ones are the same bytes, wherever they lie."""

    kind: AssetKind
    source: str
    """The hub's repository, the package, the function that prepares it, or the address as it may be shown: its content
    hangs on `revision` alone."""
    revision: str
    """Commit of a repository, sha256 of a file, digest of all that a preparation hangs on; '' where a package's file is
    taken as it is installed."""
    select: tuple[str, ...] = ()
    """Glob patterns of a hub repository's files ('' for none given); the path in a package; what it is prepared of."""

    @property
    def key(self) -> str:
        """64 hex digits that stand for it in the cache."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Wanted:
        """Raises KeyError or TypeError where `value` is something else."""
        texts = (str(value["source"]), str(value["revision"]), tuple(map(str, value["select"])))
        return cls(value["kind"], *texts)


class AssetFault(Exception):
    """One asset cannot be had, or is not what was declared: the `key` of it to look at, what is wrong, and the fix."""

    def __init__(self, key: str, what: str, fix: str) -> None:
        super().__init__(what)
        self.key, self.what, self.fix = key, what, fix


class NoAnswer(AssetFault):
    """The place that it comes from is down, so that nothing else from there need be waited for."""


def wants_of(assets: Mapping[str, Asset], folder: Path) -> dict[str, Wanted]:
    """What each of checked assets wants, those that are prepared of others last. `folder` holds the recipe's code."""
    fetched = {name: wanted_of(asset) for name, asset in assets.items() if asset.prepare is None}
    prepared = {name: _wanted_prepared(asset, fetched, folder) for name, asset in assets.items() if asset.prepare}
    return fetched | prepared


def _wanted_prepared(asset: Asset, fetched: Mapping[str, Wanted], folder: Path) -> Wanted:
    assert asset.prepare is not None, "only what is prepared is asked for"
    sources = {name: fetched[name].key for name in asset.of if name in fetched}
    hangs_on = [asset.prepare, asset.args, sources, digest_of_code(asset.prepare, folder)]
    revision = hashlib.sha256(json.dumps(hangs_on, sort_keys=True, default=str).encode()).hexdigest()
    return Wanted("prepare", asset.prepare, revision, asset.of)


def wanted_of(asset: Asset) -> Wanted:
    """What a checked asset wants that is not prepared of others."""
    kind = asset.kind
    if kind == "url":
        return Wanted(kind, shown(asset.url or ""), asset.sha256 or "")
    if kind == "package":
        return Wanted(kind, asset.package or "", asset.sha256 or "", (asset.path or "",))
    if kind == "wheel":
        return Wanted(kind, asset.wheel or "", asset.sha256 or "")
    if kind == "git":
        return Wanted(kind, shown(asset.git or ""), asset.commit or "")
    return Wanted(kind, asset.tokenizer or asset.model or "", asset.revision or "", asset.files)
