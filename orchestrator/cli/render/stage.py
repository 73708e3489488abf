"""What `orchestrate stage` has fetched, as a screen and as data. Pure."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.render.text import aligned
from orchestrator.submit.assets.lock import LockedAsset
from orchestrator.submit.assets.stage import Staged, StageReport
from orchestrator.units import plural

_SHORT = 12


def stage_screen(report: StageReport) -> str:
    """A row an asset: what it is, how much of it, whether it was fetched now, and where it lies; then the lock."""
    if not report.assets:
        return "nothing to stage: the recipe declares no assets\n"
    cells = [(one.name, _source(one.locked), _amount(one), _how(one), str(one.path)) for one in report.assets]
    return f"{aligned(cells)}lock: {report.lock}\n"


def stage_facts(report: StageReport) -> dict[str, Any]:
    """The same as data."""
    assets = {
        one.name: {**one.locked.as_json(), "path": str(one.path), "bytes": one.num_bytes, "fetched": one.fetched}
        for one in report.assets
    }
    return {"lock": str(report.lock), "cache": str(report.cache), "assets": assets}


def arrival(name: str, done: int, total: int | None) -> str:
    """One line of talk about an asset that is coming."""
    if total is None:
        return f"{name}: {size(done)}"
    return f"{name}: {size(total)} here" if done >= total else f"{name}: fetching {size(total)}"


def size(num_bytes: int) -> str:
    """'912 bytes', '1.2 MB': as people write it, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return plural(num_bytes, "byte")


def _source(locked: LockedAsset) -> str:
    wanted = locked.wanted
    if wanted.kind == "package":
        return f"{wanted.source} {locked.version}"
    if wanted.kind in ("url", "wheel", "prepare"):
        return wanted.source
    return f"{wanted.source}@{wanted.revision[:_SHORT]}"


def _amount(one: Staged) -> str:
    return f"{plural(len(one.locked.files), 'file')}, {size(one.num_bytes)}"


def _how(one: Staged) -> str:
    if one.locked.wanted.kind == "package":
        return "installed"
    if not one.fetched:
        return "there already"
    return "prepared" if one.locked.wanted.kind == "prepare" else "fetched"
