"""The lock: `<recipe>.lock.json` beside the recipe says which bytes `stage` found. Equal assets give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe.check_assets import stays_inside
from orchestrator.submit.assets.declared import FILE_KINDS, Wanted

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
    token: bool = False
    """Whether the hub handed it out only to somebody with a token."""

    def as_json(self) -> dict[str, Any]:
        told = {"version": self.version, "token": self.token}
        more = {key: value for key, value in told.items() if value}
        return {**asdict(self.wanted), **more, "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LockedAsset:
        """Raises KeyError, TypeError, ValueError or OverflowError where `value` is something else."""
        files = tuple(LockedFile(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in value["files"])
        locked = cls(Wanted.from_json(value), files, str(value.get("version", "")), value.get("token") is True)
        locked.refuse_other_files()
        return locked

    def refuse_other_files(self) -> None:
        """Raise ValueError where the files cannot be those that were wanted."""
        if not self.files:
            raise ValueError(f"it names no files of {self.wanted.source}")
        for file in self.files:
            if not stays_inside(file.path):
                raise ValueError(f"{file.path!r} leads to no file of {self.wanted.source}")
        alone = self.wanted.kind in FILE_KINDS
        if alone and (len(self.files) != 1 or self.wanted.revision not in ("", self.files[0].sha256)):
            raise ValueError(f"its files are not the one of {self.wanted.source}")


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
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        problem = Problem(str(path), f"is not a lock file: {why}", "take it away, then stage again")
    raise RecipeError(problem)
