"""The lock: `<recipe>.lock.json` beside the recipe says which bytes `stage` found. Equal assets give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.submit.assets.declared import Wanted

FORMAT = 1


@dataclass(frozen=True, order=True)
class LockedFile:
    """One file: its path in the asset, its size in bytes, its sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class LockedAsset:
    """What was wanted, and the files that this turned out to be, by path."""

    wanted: Wanted
    files: tuple[LockedFile, ...]
    version: str = ""
    """Of the installed package; '' for all else."""

    def as_json(self) -> dict[str, Any]:
        version = {"version": self.version} if self.version else {}
        return {**asdict(self.wanted), **version, "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LockedAsset:
        """Raises KeyError, TypeError or ValueError where `value` is something else."""
        files = tuple(LockedFile(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in value["files"])
        return cls(Wanted.from_json(value), files, str(value.get("version", "")))


def lock_path(recipe_path: Path) -> Path:
    """`recipe.lock.json` for `recipe.yaml`."""
    return recipe_path.with_name(f"{recipe_path.stem}.lock.json")


def lock_text(assets: Mapping[str, LockedAsset]) -> str:
    """The file's text, sorted."""
    whole = {"format": FORMAT, "assets": {name: locked.as_json() for name, locked in assets.items()}}
    return json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_lock(path: Path) -> dict[str, LockedAsset]:
    """What `lock_text` wrote; nothing where there is no file. Raises RecipeError for anything else."""
    try:
        whole = json.loads(path.read_bytes())
        if whole["format"] != FORMAT:
            raise ValueError(f"its format is {whole['format']}, and this version reads {FORMAT}")
        return {name: LockedAsset.from_json(value) for name, value in whole["assets"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = Problem(str(path), f"cannot be read: {error.strerror}", "check its permissions, or stage again")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = str(error) if "format is" in str(error) else f"{type(error).__name__}: {error}"
        problem = Problem(str(path), f"is not a lock file: {why}", "take it away, then stage again")
    raise RecipeError(problem)
