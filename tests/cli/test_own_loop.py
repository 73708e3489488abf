"""The digits with a loop of one's own, by the verbs: the curve of the package's loop, also where memory runs out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import orchestrate
from tests.support.tracked import largest_difference, losses, windows

DIGITS = Path(__file__).parents[2] / "recipes" / "digits"
BEGINNING = ("--wait", "--json", "--set", "precision=fp64", "--set", "tracking.sample_ids=true")
SHORT = ("--set", "duration.epochs=2", "--set", "schedule.warmup.epochs=1", "--set", "checkpoint.every.epochs=1")


def trained(cwd: Path, recipe: str, *words: str) -> tuple[Path, dict[str, float]]:
    """The run directory and the results of a run to its end."""
    done = orchestrate("submit", DIGITS / recipe, *BEGINNING, *SHORT, *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    return Path(facts["run_dir"]), facts["metrics"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    return trained(tmp_path_factory.mktemp("packages"), "digits.yaml")


def test_the_digits_own_loop_trains_what_the_packages_loop_trains(
    packages: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    run, metrics = trained(tmp_path, "own_loop.yaml", "--set", "resources.gpus_per_node=2")
    assert windows(run) == windows(packages[0])
    assert losses(run).keys() == losses(packages[0]).keys()
    assert largest_difference(losses(packages[0]), losses(run)) <= 1e-12
    assert metrics["val/accuracy"] == packages[1]["val/accuracy"]


def test_memory_that_runs_out_in_an_own_loop_is_planned_anew_and_changes_nothing(
    packages: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    limit = ("--set", "env.variables.ORCHESTRATE_MICRO_BATCH_LIMIT=48,24@30")
    run, _ = trained(tmp_path, "own_loop.yaml", *limit)
    assert len(list((run / "attempts").iterdir())) == 3
    assert losses(run).keys() == losses(packages[0]).keys()
    assert largest_difference(losses(packages[0]), losses(run)) <= 1e-12
