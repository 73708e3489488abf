"""MLflow killed for the middle third of a run: training keeps its speed, and afterwards every point is there once.

The step is 20 ms, most of it waiting, as a host waits for its GPU: a loop that waited for the tracker would show.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import pytest

from tests.support.command_line import RECIPES, orchestrate
from tests.support.mlflow_server import MlflowServer
from tests.support.tracked import losses, metric_rows, records

pytestmark = pytest.mark.bench

SLOW = RECIPES / "slow.yaml"
NUM_STEPS = 600


def wait_for_step(run_dir: Path, step: int) -> None:
    deadline = time.monotonic() + 180
    while max(losses(run_dir), default=0) < step:
        assert time.monotonic() < deadline, (run_dir / "logs" / "job-local.log").read_text()
        time.sleep(0.2)


def test_an_outage_of_the_middle_third_costs_training_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """A neighbour on the machine can slow a third of a run: then it is measured once more. The points are always all
    there."""
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        folder.mkdir()
        ratio = run_with_an_outage(folder)
        if ratio <= 1.05:
            return
    raise AssertionError(f"the median step without MLflow was {ratio:.3f} times that of the rest, twice")


def run_with_an_outage(tmp_path: Path) -> float:
    """The median step of the third without MLflow, as a ratio to that of the other two; all points are checked."""
    server = MlflowServer(tmp_path)
    server.start()
    words = ("--set", f"tracking.uri={server.url}", "--set", f"duration.steps={NUM_STEPS}")
    submitted = orchestrate("submit", SLOW, *words, "--set", "datasets.0.args.pause_s=0.001", "--json", cwd=tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    run_dir = Path(json.loads(submitted.stdout)["run_dir"])
    try:
        wait_for_step(run_dir, NUM_STEPS // 3)
        server.kill()
        wait_for_step(run_dir, 2 * NUM_STEPS // 3)
        server.start()
        wait_for_step(run_dir, NUM_STEPS)
        synced = orchestrate("sync", run_dir.name, cwd=tmp_path)
        deadline = time.monotonic() + 60
        while synced.returncode != 0 and time.monotonic() < deadline:  # the driver's own forwarder holds the pen
            time.sleep(1)
            synced = orchestrate("sync", run_dir.name, cwd=tmp_path)
        assert synced.returncode == 0, synced.stderr
    finally:
        server.kill()

    thirds: list[list[float]] = [[], [], []]
    for record in records(run_dir, "*.rank-0.log"):
        if record["kind"] == "metrics" and "train/step_time_s" in record["values"]:
            thirds[(record["step"] - 1) * 3 // NUM_STEPS].append(record["values"]["train/step_time_s"])
    ratio = statistics.median(thirds[1]) / statistics.median(thirds[0] + thirds[2])
    print("\nmedians by third, ms:", *(f"{statistics.median(third) * 1e3:.2f}" for third in thirds))
    print(f"median step of the third without MLflow: {ratio:.3f} times that of the other two (at most 1.05)")
    for key in ("train/loss", "train/lr", "progress/samples"):
        assert [step for step, _ in metric_rows(server.db, key)] == list(range(1, NUM_STEPS + 1)), key
    assert dict(metric_rows(server.db, "train/loss")) == losses(run_dir)
    return ratio
