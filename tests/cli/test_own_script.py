"""`recipes/own_script`: a script that knows nothing of us, trained to its end by the verbs, and stopped on the way."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.support.command_line import orchestrate

RECIPE = Path(__file__).parent.parent.parent / "recipes" / "own_script" / "own_script.yaml"


def log_of(run_dir: Path, attempt: int) -> str:
    """What rank 0, the only one that prints, has printed so far."""
    log = run_dir / "attempts" / f"{attempt:03d}" / "logs" / "rank-0.log"
    return log.read_text() if log.exists() else ""


def losses_in(log: str) -> dict[int, float]:
    """The printed loss by step."""
    return {int(step): float(loss) for step, loss in re.findall(r"^step (\d+)  loss ([\d.]+)", log, re.MULTILINE)}


def accuracy_in(log: str) -> float:
    found = re.search(r"^held-out accuracy ([\d.]+)$", log, re.MULTILINE)
    assert found, log
    return float(found[1])


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs are submitted: one tracking store, which takes MLflow seconds to make."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def logs(cwd: Path) -> dict[int, str]:
    """The whole run on one rank (four micro-batches per step) and on two (two each)."""
    found = {}
    for num_ranks in (1, 2):
        shape = ("--set", f"resources.gpus_per_node={num_ranks}", "--again")
        done = orchestrate("submit", RECIPE, *shape, "--wait", "--json", cwd=cwd)
        assert done.returncode == 0, done.stderr
        found[num_ranks] = log_of(Path(json.loads(done.stdout)["run_dir"]), 0)
    return found


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_it_trains_well_to_the_end(logs: dict[int, str], num_ranks: int) -> None:
    losses = losses_in(logs[num_ranks])
    assert max(losses) == 330 and losses[330] < 0.05 < losses[20]
    assert accuracy_in(logs[num_ranks]) >= 0.97


def test_the_plans_numbers_make_the_same_batch_on_one_rank_and_on_two(logs: dict[int, str]) -> None:
    """In the first pass over the data both see the same 64 images per step, however they are shared out."""
    assert losses_in(logs[2])[20] == pytest.approx(losses_in(logs[1])[20], abs=1.01e-4)  # printed to 1e-4


def test_asked_to_stop_it_saves_says_so_and_resume_ends_it_on_another_world(cwd: Path) -> None:
    two_ranks = ("--set", "resources.gpus_per_node=2", "--set", "duration.steps=500")
    submitted = orchestrate("submit", RECIPE, *two_ranks, "--json", cwd=cwd)
    assert submitted.returncode == 0, submitted.stderr
    run_dir = Path(json.loads(submitted.stdout)["run_dir"])
    deadline = time.monotonic() + 120
    while not losses_in(log_of(run_dir, 0)):
        assert time.monotonic() < deadline, log_of(run_dir, 0)
        time.sleep(0.1)
    assert orchestrate("cancel", run_dir.name, cwd=cwd).returncode == 0
    while not (verdict := run_dir / "attempts" / "000" / "verdict.json").exists():
        assert time.monotonic() < deadline, "no verdict"
        time.sleep(0.1)
    told, stop = json.loads(verdict.read_text()), json.loads((run_dir / "attempts" / "000" / "stop.json").read_text())
    assert (told["outcome"], told["step"], stop["signal"]) == ("stopped", stop["step"], "SIGTERM")
    assert 20 <= stop["step"] < 500
    resumed = orchestrate("resume", run_dir.name, "--set", "resources.gpus_per_node=1", "--wait", cwd=cwd)
    assert resumed.returncode == 0, resumed.stderr
    before, after = losses_in(log_of(run_dir, 0)), losses_in(log_of(run_dir, 1))
    assert max(before) == stop["step"] < min(after) <= stop["step"] + 20 and max(after) == 500
    assert accuracy_in(log_of(run_dir, 1)) >= 0.97
