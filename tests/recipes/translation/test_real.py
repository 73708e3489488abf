"""The recipes on their real data, as a person runs them: `make recipes`. Minutes, and wheels from where pip looks."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from decode import Search
from text import Text
from translate import Translator

from orchestrator.worker.trained import open_trained
from tests.recipes.translation.own_run import RECIPES
from tests.support.decoding import Anew
from tests.support.worlds import ROOT

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class RealRun:
    """A recipe that was staged and trained in a folder of its own."""

    folder: Path
    recipe: str
    seconds: float
    """From `submit` to the end of `--wait`."""

    def translate(self, *words: str) -> list[str]:
        done = call(self.folder, str(RECIPES / "translate.py"), self.recipe, *words)
        return done.stdout.splitlines()

    def sweep(self) -> dict[str, Any]:
        """What `--sweep` found, as MLflow has it."""
        print("\n".join(self.translate("--sweep")))
        (found,) = (self.folder / "mlruns").rglob("sweep.json")
        facts: dict[str, Any] = json.loads(found.read_text())
        return facts


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def trained(folder: Path, recipe: str) -> RealRun:
    words = ("-m", "orchestrator.cli")
    call(folder, *words, "stage", str(RECIPES / f"{recipe}.yaml"))
    began = time.monotonic()
    done = call(folder, *words, "submit", str(RECIPES / f"{recipe}.yaml"), "--wait")
    print(done.stdout)
    return RealRun(folder, recipe, time.monotonic() - began)


def test_english_to_chinese_in_six_minutes(tmp_path: Path) -> None:
    run = trained(tmp_path, "en_zh")
    assert run.seconds < 360
    assert run.translate("I love you.", "You love me.") == ["我爱你。", "你爱我。"]
    (environment,) = (tmp_path / "runs").glob("*/environment.json")
    folder = Path(json.loads(environment.read_text())["ORCHESTRATE_ASSET_TEXT"])
    assert not any(
        line.startswith("You love me.") for part in folder.glob("*.tsv") for line in part.read_text().splitlines()
    )
    found = run.sweep()
    assert found["test"]["greedy"]["bleu"] >= 20


def test_english_to_german_with_the_cell_that_is_best_on_the_part_for_development(tmp_path: Path) -> None:
    run = trained(tmp_path, "en_de")
    found = run.sweep()
    greedy, *_, best = found["test"].values()
    assert greedy["chrf"] >= 50
    assert found["beam"] == 4 and found["alpha"] > 0 and best["chrf"] > greedy["chrf"]
    assert faster_with_what_is_kept(run) >= 4


def faster_with_what_is_kept(run: RealRun) -> float:
    """How many times as fast the test part is translated, beam 4, beside calling the model anew for each token."""
    (path,) = (run.folder / "runs").iterdir()
    opened = open_trained(path)
    model, text = opened.model(), Text(opened.asset("text") / "tokenizer.json")
    lines = (opened.asset("text") / "homeassistant.test.tsv").read_text().splitlines()
    sources, factors = [line.split("\t")[0] for line in lines], []
    for _ in range(3):
        seconds, found = [], []
        for one in (model, Anew(model)):
            began = time.perf_counter()
            found.append(Translator(one, text)(sources, Search()))
            seconds.append(time.perf_counter() - began)
        assert [one.tokens for one in found[0]] == [one.tokens for one in found[1]]
        factors.append(seconds[1] / seconds[0])
    print(f"test part of {len(sources)} sentences: {statistics.median(factors):.1f} times as fast with what is kept")
    return statistics.median(factors)
