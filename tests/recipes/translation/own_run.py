"""The recipe on pairs of our own, small and quick: staged from a wheel on a shelf, trained on two ranks, translated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.own_pairs import own_pairs, own_wheels
from tests.support.worlds import ROOT

RECIPES = ROOT / "recipes" / "translation"
HELD_OUT = 16
SMALL = (
    "assets.text.args.vocabulary=150",
    f"assets.text.args.held_out={HELD_OUT}",
    "model.args.vocabulary=150",
    "model.args.width=64",
    "model.args.feed_forward=128",
    f"datasets.0.num_samples={len(own_pairs()) - 2 * HELD_OUT}",
    f"validation.0.num_samples={HELD_OUT}",
    "batch.effective=24",
    "batch.micro=4",
    "optimizer.base_batch=24",
    "optimizer.lr=5e-3",
)
TRAINED = ("duration.epochs=30", "evaluation.every.epochs=10", "loss.args.smoothing=0.0")


@dataclass(frozen=True)
class Workplace:
    """A copy of the recipes' folder with a shelf of wheels, a cache and runs of its own."""

    folder: Path
    settings: tuple[str, ...]
    recipe: str

    @classmethod
    def at(cls, folder: Path, *settings: str, recipe: str = "en_zh.yaml") -> Workplace:
        """For one of the recipes, changed by `settings`; the wheels that it names are our own."""
        shutil.copytree(RECIPES, folder, ignore=shutil.ignore_patterns("__pycache__", "*.lock.json"))
        (folder / "shelf").mkdir()
        text = (folder / recipe).read_text()
        sums = {name: sha256 for name, sha256 in own_wheels(folder / "shelf").items() if f"\n  {name}:" in text}
        return cls(folder, (*(f"assets.{name}.sha256={sha256}" for name, sha256 in sums.items()), *settings), recipe)

    @property
    def run(self) -> Path:
        (found,) = (self.folder / "runs").iterdir()
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder / "shelf"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
        }

    def orchestrate(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        options = [word for change in self.settings for word in ("--set", change)]
        return self._call([sys.executable, "-m", "orchestrator.cli", verb, self.recipe, *options, *words])

    def translate(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return self._call([sys.executable, "translate.py", *words], text)

    def _call(self, command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
