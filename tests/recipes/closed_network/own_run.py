"""A copy of the recipe's folder, with runs of its own and a cache beside it, in an environment that names a hub."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.recipe.read import read_recipe
from tests.support.command_line import orchestrate
from tests.support.worlds import ROOT

RECIPE = ROOT / "recipes" / "closed_network"


@dataclass(frozen=True)
class Workplace:
    folder: Path
    """A new one, in a folder of its own."""

    @classmethod
    def at(cls, folder: Path) -> Workplace:
        shutil.copytree(RECIPE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.lock.json", "runs", "ml*"))
        return cls(folder)

    def repository(self, asset: str) -> tuple[str, str]:
        """The name and the commit that the recipe asks a hub for."""
        declared = read_recipe(self.folder / "closed_network.yaml").recipe.assets[asset]
        return str(declared.tokenizer or declared.model), str(declared.revision)

    def orchestrate(self, verb: str, *words: str, hub: str, **env: str) -> subprocess.CompletedProcess[str]:
        own = {
            "HF_ENDPOINT": hub,
            "HF_TOKEN": "",
            "HF_HUB_OFFLINE": "",
            "ORCHESTRATE_CACHE": "",
            "XDG_CACHE_HOME": str(self.folder.parent / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        return orchestrate(verb, "closed_network.yaml", *words, cwd=self.folder, env={**own, **env}, timeout_s=300)

    @property
    def run(self) -> Path:
        (found,) = (self.folder / "runs").iterdir()
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What the job was given."""
        return dict(json.loads((self.run / "environment.json").read_text()))

    @property
    def result(self) -> dict[str, Any]:
        """What the run came to."""
        return dict(json.loads((self.run / "attempts" / "000" / "done.json").read_text()))
