"""Every staged tokenizer is tried on real text, offline, in a process of its own; what has passed is remembered."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, SubmissionError, did_you_mean
from orchestrator.recipe.assets import Asset
from orchestrator.submit.assets.cache import AssetCache, cache_at, permissions_of, write_shared
from orchestrator.submit.assets.declared import FILE_KINDS, AssetFault, wanted_of
from orchestrator.submit.assets.fetch_hub import INSTALL
from orchestrator.submit.assets.lock import LockedAsset
from orchestrator.submit.commands import last_line, run_command

TRIAL_VERSION = 2
"""Raised whenever the trial asks for more: what has passed is then tried again."""
LEAST_VOCABULARY = 100
ENGLISH = (
    "The quick brown fox jumps over the lazy dog, and nobody minds.",
    "In 2024 the city counted 1,203,481 people; ten years earlier it was 987,650.",
    'She asked: "Why don\'t we train the model on both nodes at once?"',
    "Most of the water on the earth is salt water, which plants cannot use.",
    "Please send the report to the office before Friday, or call me on the phone.",
)
"""What a tokenizer is tried on where the recipe has nothing better."""
_TIMEOUT_S = 180
_SAMPLE_BYTES = 1 << 16
_SAMPLE_LINES = 200
_LINE_CHARS = 1000


def tokenizer_problems(
    assets: Mapping[str, Asset], locked: Mapping[str, LockedAsset], cache: AssetCache, *, folder: Path
) -> list[Problem]:
    """What is wrong with the tokenizers among the `locked` assets, which are in `cache`; `folder` holds the recipe."""
    problems: list[Problem] = []
    trials: dict[str, dict[str, Any]] = {}
    staged = {name: asset for name, asset in assets.items() if name in locked}
    for name, asset in staged.items():
        waits = asset.sample in assets and asset.sample not in staged
        if asset.tokenizer is not None and not waits:
            try:
                sample, texts = _sample(asset, staged, cache, folder)
            except AssetFault as fault:
                problems.append(Problem(f"assets.{name}.{fault.key}", fault.what, fault.fix))
                continue
            trials[name] = {
                "least": asset.min_vocabulary or LEAST_VOCABULARY,
                "sample": sample,
                "texts": texts,
            }
    digests = {name: _digest(locked[name], trial) for name, trial in trials.items()}
    new = {name: trial for name, trial in trials.items() if not _has_passed(cache, digests[name])}
    faults = _tried(new, locked, cache)
    for name in new:
        if name in faults:
            problems.append(Problem(f"assets.{name}.tokenizer", *faults[name]))
        else:
            _pass(cache, digests[name])
    return problems


def _sample(asset: Asset, staged: Mapping[str, Asset], cache: AssetCache, folder: Path) -> tuple[str, list[str]]:
    """What it is tried on: a name for it, and some lines. Raises AssetFault where the recipe's choice is not there."""
    files = {name: cache.path_of(wanted_of(other)) for name, other in staged.items() if other.kind in FILE_KINDS}
    if asset.sample is not None:
        path = files.get(asset.sample, folder / asset.sample)
        if lines := _lines(path):
            return asset.sample, lines
        what = f"there is no text in {path}" if path.is_file() else f"there is no file {path}, nor such an asset"
        near = did_you_mean(asset.sample, [*files, *(file.name for file in folder.glob("*.txt"))])
        raise AssetFault("sample", what, near if near.startswith("did") else "name a text file beside the recipe")
    for name, path in files.items():
        if path.suffix == ".txt" and (lines := _lines(path)):
            return name, lines
    return "a few English sentences", list(ENGLISH)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(_SAMPLE_BYTES).decode("utf-8-sig", errors="ignore")
    except OSError:
        return []
    lines = (line.strip()[:_LINE_CHARS] for line in text.splitlines())
    return [line for line in lines if line][:_SAMPLE_LINES]


def _digest(locked: LockedAsset, trial: Mapping[str, Any]) -> str:
    """What a passed trial hangs on: the files, the text, the libraries."""
    libraries = [_version("transformers"), _version("tokenizers")]
    facts = [TRIAL_VERSION, locked.as_json(), trial["least"], trial["texts"], libraries]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _memories(cache: AssetCache) -> Iterator[Path]:
    """Where passed trials are remembered: in the cache, or, where that may only be read, in the user's own."""
    yield cache.root / "checked"
    yield cache_at(None, {**os.environ, "ORCHESTRATE_CACHE": ""}).root / "checked"


def _has_passed(cache: AssetCache, digest: str) -> bool:
    return any((memory / digest).exists() for memory in _memories(cache))


def _pass(cache: AssetCache, digest: str) -> None:
    for memory in _memories(cache):
        with contextlib.suppress(OSError), permissions_of(memory.parent):
            write_shared(memory / digest, {"passed": True})
            return


def _tried(
    trials: Mapping[str, dict[str, Any]], locked: Mapping[str, LockedAsset], cache: AssetCache
) -> dict[str, tuple[str, str]]:
    """(what, fix) by the name of each tokenizer that did not pass."""
    if not trials:
        return {}
    environment = {**os.environ, **offline_environment(cache), "PYTHONWARNINGS": "ignore"}
    argv = (sys.executable, "-m", "orchestrator.submit.assets.tokenizer_trial")
    with tempfile.TemporaryDirectory() as work:
        folders = {name: _folder_of_locked(locked[name], Path(work, name), cache) for name in trials}
        asked = json.dumps({name: {**trial, "folder": str(folders[name])} for name, trial in trials.items()})
        try:
            done = run_command(argv, timeout_s=_TIMEOUT_S, env=environment, cwd=Path(work), text=asked)
        except SubmissionError:
            return dict.fromkeys(trials, (f"could not be tried within {_TIMEOUT_S} s", "try again on an idle machine"))
    try:
        faults: dict[str, list[str]] = json.loads(done.stdout)
    except ValueError:
        last = last_line(done.stderr, "it was killed")
        return dict.fromkeys(trials, (f"could not be tried: {last}", INSTALL))
    return {name: (what, fix) for name, (what, fix) in faults.items()}


def _folder_of_locked(locked: LockedAsset, folder: Path, cache: AssetCache) -> Path:
    """`folder`, with links to the locked files alone: beside them may lie what another recipe has staged."""
    folder.mkdir()
    source = cache.folder_of(locked.wanted)
    for file in locked.files:
        link = folder / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source / file.path)
    return folder


def offline_environment(cache: AssetCache) -> dict[str, str]:
    """Variables by which Hugging Face's libraries use `cache`, and ask no hub."""
    return {
        "HF_HOME": str(cache.hub_home),
        "HF_HUB_CACHE": str(cache.hub_home / "hub"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
