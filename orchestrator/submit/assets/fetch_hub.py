"""A repository of a hub, fetched by a process whose environment says where the hub and its cache are."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.recipe.addresses import is_printable, shown, split
from orchestrator.submit.assets.cache import AssetCache
from orchestrator.submit.assets.declared import AssetFault, NoAnswer, Progress, Wanted
from orchestrator.submit.assets.lock import LockedAsset, LockedFile
from orchestrator.submit.commands import watch_command

INSTALL = "pip install 'orchestrator[hub]'"
DEFAULT_ENDPOINT = "https://huggingface.co"
_MOST_S = 86_400.0
"""The process watches its own pace: this is for one that has gone astray."""


def fetch_hub(wanted: Wanted, cache: AssetCache, environment: Mapping[str, str], progress: Progress) -> LockedAsset:
    """Fetch the repository's files into the cache. Raises AssetFault."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise AssetFault(wanted.kind, "huggingface_hub is not installed", INSTALL)
    told: dict[str, Any] = {}
    noise: list[str] = []

    def listen(line: str) -> None:
        try:
            facts = json.loads(line)
        except ValueError:
            facts = None
        if not isinstance(facts, dict):
            noise.append(line)
            return
        told.update(facts)
        if "done" in facts:
            progress(facts["done"], facts["total"] or None)

    try:
        env = hub_environment(environment, cache)
    except ValueError as error:
        fix = "write env.mirrors.huggingface, or HF_ENDPOINT, as https://host or https://host:port"
        raise AssetFault(wanted.kind, str(error), fix) from None
    module = "orchestrator.submit.assets.hub_download"
    argv = (sys.executable, "-m", module, wanted.kind, wanted.source, wanted.revision, *wanted.select)
    watch_command(argv, timeout_s=_MOST_S, env=env, on_line=listen)
    if "files" not in told:
        last = noise[-1] if noise else "it was killed"
        key, what, fix = told.get("fault", (wanted.kind, f"huggingface_hub failed: {last}", f"upgrade it: {INSTALL}"))
        raise (NoAnswer if told.get("down") else AssetFault)(key, what, fix)
    files = tuple(LockedFile(file["path"], file["size"], file["sha256"]) for file in told["files"])
    return LockedAsset(wanted, files, token=told["token"])


def endpoint_of(environment: Mapping[str, str]) -> str:
    """The address of the hub. Raises ValueError where it is none that could be asked."""
    endpoint = environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    parts = split(endpoint)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or not is_printable(endpoint):
        raise ValueError(f"{shown(endpoint)} is no address of a hub")
    return endpoint


def hub_environment(environment: Mapping[str, str], cache: AssetCache) -> dict[str, str]:
    """`environment` for a process that fetches into `cache`; the user's own token stays where it was.

    Raises ValueError as `endpoint_of` does.
    """
    env = {name: value for name, value in environment.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    env |= {
        "HF_HOME": str(cache.hub_home),
        "HF_HUB_CACHE": str(cache.hub_home / "hub"),
        "HF_TOKEN_PATH": str(_token_path(environment)),
        "HF_HUB_DOWNLOAD_TIMEOUT": "15",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONWARNINGS": "ignore",
    }
    env["HF_ENDPOINT"] = endpoint_of(environment)
    if env["HF_ENDPOINT"] != DEFAULT_ENDPOINT:
        env["HF_HUB_DISABLE_XET"] = "1"  # a mirror hands files out by plain HTTP
    return env


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether the hub's client would find a token of the user's own; its text goes nowhere."""
    if any(environment.get(name, "").strip() for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    try:
        return bool(_token_path(environment).read_text().strip())
    except (OSError, ValueError):
        return False


def _token_path(environment: Mapping[str, str]) -> Path:
    home = Path(environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(environment.get("HF_TOKEN_PATH") or Path(environment.get("HF_HOME") or home, "token")).expanduser()
