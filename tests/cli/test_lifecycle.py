"""A run's whole life by the verbs, on this machine: submitted, watched, cancelled, resumed on another world, synced."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.machine import process_start_time
from tests.support.command_line import RECIPES, TINY, orchestrate, run_to_its_end
from tests.support.tracked import largest_difference, losses, metric_rows, records, windows

ROOT = Path(__file__).parent.parent.parent
SLOW = RECIPES / "slow.yaml"
WITH_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from orchestrator.cli.__main__ import main
sys.exit(main())
"""
"""The command line as on a terminal: what a shell starts in the background ignores SIGINT, and so do its children."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A tiny run, waited for; the folder it was submitted in, and what submit printed."""
    cwd = tmp_path_factory.mktemp("tiny")
    return cwd, orchestrate("submit", TINY, "--wait", "--json", "--set", "resources.gpus_per_node=2", cwd=cwd)


def test_submit_and_wait_prints_where_everything_is_and_how_it_ended(tiny: Any) -> None:
    cwd, done = tiny
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["outcome"], facts["metrics"]["val/accuracy"]) == ("done", 1.0)
    assert facts["mlflow_ui"] == f"mlflow ui --backend-store-uri sqlite:///{cwd}/mlflow.db"
    assert re.fullmatch(r"local:\d+:\d+", facts["job_id"]) and re.fullmatch(r"[0-9a-f]{32}", facts["mlflow_run_id"])


def test_mlflow_finds_one_finished_run_with_everything_in_it(tiny: Any) -> None:
    cwd, done = tiny
    facts = json.loads(done.stdout)
    found = searched_by_mlflow(f"sqlite:///{cwd}/mlflow.db", "tiny")
    assert [run["run_id"] for run in found["runs"]] == [facts["mlflow_run_id"]]
    run = found["runs"][0]
    assert run["status"] == "FINISHED"
    assert run["params"]["batch.effective"] == "16"
    assert {"train/loss", "train/lr", "val/accuracy", "progress/samples"} <= run["metrics"].keys()
    assert any(name.startswith("system/") and name.endswith("cpu_percent") for name in run["metrics"])
    assert any("recipe.yaml" in name for name in found["artifacts"])
    assert any("pip-freeze.txt" in name for name in found["artifacts"])
    assert any("rank-0" in name for name in found["artifacts"])


def test_the_files_of_a_run_are_its_owners_alone(tiny: Any) -> None:
    run_dir = Path(json.loads(tiny[1].stdout)["run_dir"])
    open_to_others = [path for path in (run_dir, *run_dir.rglob("*")) if path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_status_and_logs_tell_of_a_finished_run(tiny: Any) -> None:
    cwd, _ = tiny
    table = orchestrate("status", cwd=cwd).stdout.splitlines()
    assert table[0].split() == ["RUN", "STATE", "JOB", "STEP", "NODES", "WHY"]
    assert table[1].split()[1] == "done" and "16/16" in table[1]
    assert orchestrate("logs", "tiny", "--rank", "1", cwd=cwd).returncode == 0
    assert "driver: done" in orchestrate("logs", "tiny", "--job", cwd=cwd).stdout
    missing = orchestrate("logs", "tiny", "--rank", "5", cwd=cwd)
    assert missing.returncode == 2 and "no output of rank 5: ranks 0 to 1 have written any" in missing.stderr


def test_the_same_science_is_not_done_twice_unless_told(tiny: Any) -> None:
    cwd, _ = tiny
    done = orchestrate("submit", TINY, "--set", "resources.gpus_per_node=4", cwd=cwd)
    assert done.returncode == 2
    assert "the same recipe has run already (done)" in done.stderr
    assert "add --again to run it once more" in done.stderr


def test_a_finished_run_is_neither_resumed_nor_cancelled(tiny: Any) -> None:
    cwd, _ = tiny
    assert "there is nothing to resume" in orchestrate("resume", "tiny", cwd=cwd).stderr
    assert "is not running: done" in orchestrate("cancel", "tiny", cwd=cwd).stderr


def test_sync_of_a_complete_run_sends_nothing_again(tiny: Any) -> None:
    cwd, _ = tiny
    before = metric_rows(cwd / "mlflow.db", "train/loss")
    done = orchestrate("sync", "tiny", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert metric_rows(cwd / "mlflow.db", "train/loss") == before
    assert [step for step, _ in before] == list(range(1, 17))


def test_a_run_that_is_not_there_is_named_with_those_that_are(tiny: Any) -> None:
    cwd, _ = tiny
    done = orchestrate("status", "tinny", cwd=cwd)
    assert done.returncode == 2 and "no such run" in done.stderr and "tiny-" in done.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slow recipe run to its end by one rank: its run directory."""
    return run_to_its_end(SLOW, cwd=tmp_path_factory.mktemp("uninterrupted"))


def test_cancelled_in_mid_epoch_and_resumed_on_another_world_the_curve_goes_on(
    uninterrupted: Path, tmp_path: Path
) -> None:
    slower = ("--set", "datasets.0.args.pause_s=0.005")
    submitted = orchestrate("submit", SLOW, *slower, "--json", cwd=tmp_path)
    run_dir = Path(json.loads(submitted.stdout)["run_dir"])
    wait_for_step(run_dir, 30)
    refused = orchestrate("submit", SLOW, *slower, "--again", cwd=tmp_path)
    assert refused.returncode == 2 and "the same recipe is running already" in refused.stderr
    assert orchestrate("cancel", "slow", cwd=tmp_path).returncode == 0
    stopped = wait_until_ended(tmp_path)
    assert (stopped["state"], "saved at step" in stopped["reason"]) == ("stopped", True)
    science = orchestrate("resume", "slow", "--set", "optimizer.lr=0.2", cwd=tmp_path)
    assert science.returncode == 2 and "a resumed run may not change this" in science.stderr
    resumed = orchestrate("resume", "slow", "--set", "resources.gpus_per_node=2", "--wait", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert windows(run_dir) == windows(uninterrupted)
    assert largest_difference(losses(run_dir), losses(uninterrupted)) <= 1e-12
    assert [step for step, _ in metric_rows(tmp_path / "mlflow.db", "train/loss")] == list(range(1, 301))
    assert orchestrate("status", "--json", cwd=tmp_path).stdout.count('"attempt": 1') == 1


def test_another_order_of_samples_is_gone_on_in_only_where_it_was_asked_for(tmp_path: Path) -> None:
    submitted = orchestrate("submit", SLOW, "--json", "--set", "duration.steps=400", cwd=tmp_path)
    run_dir = Path(json.loads(submitted.stdout)["run_dir"])
    wait_for_step(run_dir, 30)
    orchestrate("cancel", "slow", cwd=tmp_path)
    step = int(re.findall(r"\d+", wait_until_ended(tmp_path)["reason"])[0])
    refused = orchestrate("resume", "slow", "--set", "seed=8", cwd=tmp_path)
    assert refused.returncode == 2 and "go on in the new order of samples: --new-order" in refused.stderr
    resumed = orchestrate("resume", "slow", "--set", "seed=8", "--new-order", "--wait", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert sorted(windows(run_dir)) == list(range(1, 401))
    tags = [record["values"] for record in records(run_dir, "001.*.rank-0.log") if record["kind"] == "tags"]
    assert tags == [{"orchestrate.new_order": f"from step {step}: seed: 7 -> 8"}]


def test_a_failing_run_ends_with_its_reason_and_exit_code_4(tmp_path: Path) -> None:
    done = orchestrate("submit", TINY, "--wait", "--set", "datasets.0.num_samples=65", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stdout.splitlines()[-1].startswith("failed ")
    assert "65" in done.stdout and "64" in done.stdout


def test_ctrl_c_while_waiting_leaves_the_run_alone(tmp_path: Path) -> None:
    words = ("submit", str(SLOW), "--set", "duration.steps=300", "--wait")
    argv = (sys.executable, "-c", WITH_CTRL_C, *words)
    waiting = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    run_dir = Path(waiting.stdout.readline().split()[1])
    time.sleep(1)
    waiting.send_signal(2)
    _, talk = waiting.communicate(timeout=30)
    assert waiting.returncode == 130 and "the run goes on: orchestrate logs -f" in talk
    assert wait_until_ended(tmp_path)["state"] == "done"
    assert (run_dir / "attempts" / "000" / "done.json").exists()


def test_the_first_command_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    """Run in the present environment, where the install half of it has happened already."""
    readme = (ROOT / "README.md").read_text()
    install, submit = re.search(r"^(pip install .*) && (orchestrate submit .*)$", readme, re.MULTILINE).groups()
    assert install == "pip install -c constraints.txt -e '.[recipes]'"
    words = shlex.split(submit)[1:]
    done = orchestrate(*(ROOT / word if word.endswith(".yaml") else word for word in words), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"^val/accuracy +([\d.]+)$", done.stdout, re.MULTILINE)[1])
    assert accuracy >= 0.97
    store = re.search(r"--backend-store-uri (\S+)", done.stdout)[1]
    runs = searched_by_mlflow(store, "digits")["runs"]
    assert [run["status"] for run in runs] == ["FINISHED"]


def wait_for_step(run_dir: Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if max(losses(run_dir), default=0) >= step:
            return
        time.sleep(0.1)
    raise AssertionError(f"step {step} was not reached: {(run_dir / 'logs' / 'job-local.log').read_text()}")


def wait_until_ended(cwd: Path) -> dict[str, Any]:
    """The status of the one run in `cwd` once its job's process is gone."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        status: dict[str, Any] = json.loads(orchestrate("status", "--json", cwd=cwd).stdout)[0]
        pid = int(status["job_id"].split(":")[1])
        if status["state"] not in ("running", "pending") and process_start_time(pid) is None:
            return status
        time.sleep(0.3)
    raise AssertionError("the run has not ended")


def searched_by_mlflow(uri: str, experiment: str) -> dict[str, Any]:
    """What MLflow's own client finds, asked in a process of its own."""
    program = """
import json, sys, mlflow
from mlflow import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
runs = mlflow.search_runs(experiment_names=[sys.argv[2]], output_format="list")
def walk(run_id, path=None):
    for item in client.list_artifacts(run_id, path):
        yield from walk(run_id, item.path) if item.is_dir else [item.path]
print(json.dumps({"runs": [{"run_id": r.info.run_id, "status": r.info.status, "params": r.data.params,
    "metrics": r.data.metrics, "tags": r.data.tags} for r in runs],
    "artifacts": [path for r in runs for path in walk(r.info.run_id)]}))
"""
    argv = (sys.executable, "-c", program, uri, experiment)
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True, env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
