"""The recipe on pairs of our own, small and quick: staged from a wheel on a shelf, trained on two ranks, translated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.recipes.workplace import NOT_COPIED, Workplace
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


def place_at(folder: Path, *settings: str, recipe: str = "en_zh.yaml") -> Workplace:
    """For one of the recipes, changed by `settings`; the wheels that it names are our own, on a shelf."""
    shutil.copytree(RECIPES, folder, ignore=NOT_COPIED)
    (folder / "shelf").mkdir()
    text = (folder / recipe).read_text()
    sums = {name: sha256 for name, sha256 in own_wheels(folder / "shelf").items() if f"\n  {name}:" in text}
    changes = (*(f"assets.{name}.sha256={sha256}" for name, sha256 in sums.items()), *settings)
    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "shelf"), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return Workplace(folder, recipe, changes, env)


def text_of(place: Workplace) -> Path:
    """What staging has prepared."""
    return Path(place.environment["ORCHESTRATE_ASSET_TEXT"])


def translate(place: Workplace, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run translate.py in its folder, with `text` as its standard input."""
    return subprocess.run(
        [sys.executable, "translate.py", *words],
        cwd=place.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **place.env},
        input=text,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
