"""Three datasets of very different size: the shares of every prefix, and a run that is killed and goes on elsewhere."""

from __future__ import annotations

import re
import signal
from itertools import accumulate
from pathlib import Path

import pytest

from orchestrator.recipe.read import read_recipe
from orchestrator.run_dir import RunDir
from tests.recipes.translation.own_run import place_at
from tests.recipes.workplace import Workplace
from tests.support.worlds import make_run, metrics_of, run_world, sample_ids_of, world_of

SIZES = {"tatoeba": 208, "homeassistant": 12, "hsk": 16}
"""Of the parts to train on: eight sentences of each dataset are held out."""
SETTINGS = (
    "assets.text.args.vocabulary=180",
    "assets.text.args.held_out=4",
    "model.args.vocabulary=180",
    "model.args.width=32",
    "model.args.feed_forward=64",
    "model.args.dropout=0.0",
    *(f"datasets.{index}.num_samples={size}" for index, size in enumerate(SIZES.values())),
    *(f"validation.{index}.num_samples=4" for index in range(len(SIZES))),
    "mixture.epoch.samples=300",
    "batch.effective=24",
    "batch.micro=8",
    "optimizer.base_batch=24",
    "duration.epochs=4",
    "precision=fp64",
    "tracking.sample_ids=true",
    "checkpoint.every.minutes=null",
    "checkpoint.every.steps=5",
)
STEPS, KILLED_AFTER = 50, 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = place_at(tmp_path_factory.mktemp("mixture") / "recipe", *SETTINGS, recipe="mixture_en_zh.yaml")
    ended = place.orchestrate("stage")
    assert ended.returncode == 0, ended.stderr
    return place


def run_at(folder: Path, place: Workplace) -> RunDir:
    wanted = read_recipe(place.folder / place.recipe, place.settings).recipe.model_dump(mode="json")
    return make_run(folder, wanted, place.folder)


def prepared_in(place: Workplace) -> str:
    """The folder that staging has filled, where there is no run yet."""
    (folder,) = (place.folder.parent / "cache" / "orchestrate" / "assets" / "prepared").iterdir()
    return str(folder)


def test_the_plan_has_shares_and_passes_and_warns_of_what_is_seen_often(place: Workplace) -> None:
    ended = place.orchestrate("plan")
    assert ended.returncode == 0, ended.stderr
    shares = {name: size ** (1 / 3) for name, size in SIZES.items()}  # by temperature 3
    for name, size in SIZES.items():
        share = shares[name] / sum(shares.values())
        told = re.search(rf"{name} {size} samples, ([0-9.]+)% of all, ([0-9.]+) passes", ended.stdout)
        assert told and float(told[1]) == pytest.approx(100 * share, abs=0.1), ended.stdout
        assert float(told[2]) == pytest.approx(share * STEPS * 24 / size, rel=0.01)
    assert "W_REPEAT: hsk is seen 17.6 times" in ended.stdout, ended.stdout


def test_nothing_that_is_held_out_of_one_dataset_is_in_the_training_of_another(place: Workplace) -> None:
    parts = {path.stem: path.read_text().splitlines() for path in Path(prepared_in(place)).glob("*.tsv")}
    assert len(parts) == 9
    for side in (0, 1):
        sides = {name: {line.split("\t")[side] for line in lines} for name, lines in parts.items()}
        trained = set().union(*(found for name, found in sides.items() if name.endswith("train")))
        assert not any(trained & found for name, found in sides.items() if not name.endswith("train"))


def test_every_prefix_is_within_a_sample_of_the_shares_and_a_killed_run_goes_on_on_another_world(
    tmp_path: Path, place: Workplace
) -> None:
    env = {"ORCHESTRATE_ASSET_TEXT": prepared_in(place)}
    whole, killed = run_at(tmp_path / "whole", place), run_at(tmp_path / "killed", place)
    run_world(whole, 1, is_anew=True, **env)
    with world_of(killed, 2, is_anew=True, **env) as world:
        world.wait_for_step(KILLED_AFTER)
        for rank in range(2):
            world.signal(signal.SIGKILL, rank=rank)
        world.wait()
    run_world(killed, 3, is_anew=True, **env)

    expected, found = sample_ids_of(whole), sample_ids_of(killed)
    assert list(expected) == list(found) == list(range(1, STEPS + 1))
    assert all(sorted(found[step]) == sorted(expected[step]) for step in expected)
    assert metrics_of(killed, "train/loss") == pytest.approx(metrics_of(whole, "train/loss"), rel=1e-12)

    ends = list(accumulate(SIZES.values()))
    passes = {name: metrics_of(killed, f"data/{name}/passes")[STEPS] for name in SIZES}
    shares = {name: passes[name] * size / (STEPS * 24) for name, size in SIZES.items()}
    assert sum(shares.values()) == pytest.approx(1) and shares["tatoeba"] < 0.6
    counted, seen = dict.fromkeys(SIZES, 0), 0
    for step in range(1, STEPS + 1):
        for sample in expected[step]:
            counted[next(name for name, end in zip(SIZES, ends, strict=True) if sample < end)] += 1
        seen += len(expected[step])
        assert all(abs(counted[name] - shares[name] * seen) <= 1 for name in SIZES), step
