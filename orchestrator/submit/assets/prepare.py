"""Files that a recipe's own function makes of other assets: in a process of its own, in place when all are there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.recipe.assets import Asset
from orchestrator.submit.assets.cache import AssetCache, locked_files, made_beside
from orchestrator.submit.assets.declared import AssetFault, Wanted
from orchestrator.submit.assets.lock import LockedAsset
from orchestrator.submit.commands import Say, watch_command

FAULT = "orchestrate-fault: "
"""What a line of the process begins with that tells of an error."""
_MOST_S = 86_400.0


def prepare(
    asset: Asset,
    wanted: Wanted,
    sources: Mapping[str, Path],
    cache: AssetCache,
    *,
    code: Path,
    environment: Mapping[str, str],
    say: Say,
) -> LockedAsset:
    """Call the function with the paths of `sources`, its lines of output going to `say`. Raises AssetFault.

    `code` is the recipe's folder, in which the function's modules are looked up first.
    """
    folder = cache.folder_of(wanted)
    with made_beside(folder) as new:
        new.mkdir()
        _call(asset, new, sources, code=code, environment=environment, say=say)
        files = locked_files(new)
        if not files:
            raise AssetFault("prepare", f"{asset.prepare} wrote no file", "write what it makes into `folder`")
    return LockedAsset(wanted, files)


def _call(
    asset: Asset,
    folder: Path,
    sources: Mapping[str, Path],
    *,
    code: Path,
    environment: Mapping[str, str],
    say: Say,
) -> None:
    task = {
        "target": asset.prepare,
        "code": str(code.absolute()),
        "folder": str(folder.absolute()),
        "assets": {name: str(path.absolute()) for name, path in sources.items()},
        "args": asset.args,
    }
    fault: dict[str, Any] = {}

    def listen(line: str) -> None:
        if line.startswith(FAULT):
            fault.update(json.loads(line.removeprefix(FAULT)))
        else:
            say(line)

    argv = (sys.executable, "-m", "orchestrator.submit.assets.prepare_process", json.dumps(task))
    env = {**environment, "PYTHONHASHSEED": "0"}  # the order of a set of words is the same each time
    status = watch_command(argv, timeout_s=_MOST_S, env=env, on_line=listen, hears_all=True)
    if fault:
        raise AssetFault("prepare", f"{asset.prepare} raised {fault['what']}", f"mend it: {fault['where']}")
    if status != 0:
        raise AssetFault("prepare", f"{asset.prepare} ended with exit code {status}", "see what it said above")
