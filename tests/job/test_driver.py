"""Whole attempts on this machine: driver, supervisors, torchrun and ranks that are small scripts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from orchestrator.files import read_json, write_atomically, write_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking.journal import read_journal_dir
from tests.job.runs import Driver, driver_on, make_run
from tests.support.waiting import is_alive, wait_for

TELL_WORLD = """
import os
print(*(os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID")))
"""

SAVE_WHEN_ASKED = """
import json, os, pathlib, signal, time
asked = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: asked.append(signal.Signals(number).name))
print("ready", os.getpid(), flush=True)
while not asked:
    time.sleep(0.05)
time.sleep(0.5)
if os.environ["RANK"] == "0":
    stop = pathlib.Path(os.environ["ORCHESTRATE_ATTEMPT_DIR"]) / "stop.json"
    stop.write_text(json.dumps({"signal": asked[0], "step": 7}))
print("saved", *asked)
"""

FAIL_ON_RANK_1 = """
import os, time
print("hello from", os.environ["RANK"], flush=True)
if os.environ["RANK"] == "1":
    raise ValueError("the data is bad")
time.sleep(60)
"""


def log_of(run: RunDir, rank: int) -> str:
    path = run.attempt(0).rank_log(rank)
    return path.read_text() if path.exists() else ""


def pids_of_ready_ranks(run: RunDir, world_size: int) -> list[int]:
    logs = [log_of(run, rank).split() for rank in range(world_size)]
    return [int(log[1]) for log in logs] if all(len(log) >= 2 for log in logs) else []


def test_two_ranks_on_one_node(tmp_path: Path) -> None:
    """One run that shows the whole contract of an attempt that ends well."""
    secrets = {"API_TOKEN": "s3cret", "OMP_NUM_THREADS": "7", "MLFLOW_TRACKING_PASSWORD": "pass"}
    script = TELL_WORLD + "print(os.environ['API_TOKEN'] == 's3cret', os.environ['OMP_NUM_THREADS'], os.getcwd())\n"
    script += "print([name for name in os.environ if name.startswith('MLFLOW_')])\n"
    run = make_run(tmp_path / "run", script, gpus_per_node=2, environment=secrets)
    with driver_on(run, env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}) as driver:
        exit_code, output = driver.end()
    assert exit_code == 0, output
    attempt = driver.attempt
    launch = read_json(attempt.launch)
    for rank in range(2):
        world, job, mlflow = log_of(run, rank).splitlines()
        assert world == f"{rank} {rank} 2 {launch['endpoint']['port']} {launch['rdzv_id']}"
        assert job == f"True 7 {run.snapshot_recipe}"
        assert mlflow == "[]"
    verdict = driver.verdict()
    assert (verdict["outcome"], verdict["final"], verdict["rank"], verdict["last_lines"]) == ("done", True, None, [])
    node = read_json(attempt.node(launch["nodes"][0]["name"]))
    assert (node["state"], node["exit_code"], [check["ok"] for check in node["checks"]]) == ("ended", 0, [True] * 3)
    assert read_json(attempt.driver)["differences"][0] == "gpus_per_node 1 -> 2" in output
    records = [record for _, record in read_journal_dir(run.path)]
    assert records[0]["kind"] == "start" and records[-1]["kind"] == "system"
    assert records[-1]["values"]["memory_percent"] > 0 and "load1" in records[-1]["values"]
    assert "forwarder up" in (run.forward / "forward.log").read_text()
    for path in run.path.rglob("*"):
        told = path.is_file() and path != run.environment and b"s3cret" in path.read_bytes()
        assert not told or path.parent == run.snapshot_recipe, path
    assert all(path.stat().st_mode & 0o077 == 0 for path in (run.path / "attempts").rglob("*"))


def test_two_nodes_on_this_machine_form_one_world_and_two_such_jobs_two(tmp_path: Path) -> None:
    first, second = (make_run(tmp_path / name, TELL_WORLD, num_nodes=2) for name in ("first", "second"))
    with driver_on(first) as one, driver_on(second) as other:
        assert one.end()[0] == other.end()[0] == 0
    ports = set()
    for run in (first, second):
        launch = read_json(run.attempt(0).launch)
        port, run_id = launch["endpoint"]["port"], launch["rdzv_id"]
        assert [log_of(run, rank) for rank in range(2)] == [f"{rank} 0 2 {port} {run_id}\n" for rank in range(2)]
        names = [node["name"] for node in launch["nodes"]]
        assert names[0].endswith("-0") and names[1].endswith("-1")
        ports.add(port)
    assert len(ports) == 2


def test_a_rank_that_fails_is_named_with_its_last_lines_and_ends_the_others(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FAIL_ON_RANK_1, num_nodes=2)
    with driver_on(run) as driver:
        exit_code, output = driver.end()
    assert exit_code == 4, output
    verdict = driver.verdict()
    node = read_json(driver.attempt.launch)["nodes"][1]["name"]
    assert (verdict["outcome"], verdict["rank"], verdict["node"]) == ("failed", 1, node)
    assert verdict["reason"] == f"rank 1 on {node} ended with exit code 1: ValueError: the data is bad"
    assert verdict["last_lines"] == ["hello from 1", "ValueError: the data is bad"]
    assert verdict["reason"] in output


def test_a_signal_at_the_driver_reaches_every_rank_which_save_and_end(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SAVE_WHEN_ASKED, num_nodes=2)
    with driver_on(run) as driver:
        pids = wait_for(lambda: pids_of_ready_ranks(run, 2))
        driver.process.send_signal(signal.SIGUSR2)
        exit_code, output = driver.end()
    assert exit_code == 0, output
    assert [log_of(run, rank).splitlines()[1] for rank in range(2)] == ["saved SIGUSR2"] * 2
    verdict = driver.verdict()
    assert (verdict["outcome"], verdict["reason"], verdict["step"]) == ("stopped", "saved at step 7 after SIGUSR2", 7)
    assert not any(map(is_alive, pids))


def test_a_driver_that_was_taken_over_leaves_the_verdict_as_it_is_and_begins_nothing(tmp_path: Path) -> None:
    """Nobody reached its node for a while; the run goes on elsewhere."""
    run = make_run(
        tmp_path / "run", FAIL_ON_RANK_1.replace("import os, time", "import os, time; time.sleep(3)"), num_nodes=2
    )
    taken_over = {"outcome": "failed", "cause": "node_lost", "final": False, "successor": "42"}
    with driver_on(run) as driver:
        wait_for(driver.attempt.launch.exists)
        write_json(driver.attempt.verdict, taken_over)
        _, output = driver.end(timeout_s=60)
    assert "has its verdict already: somebody has taken over" in output
    assert driver.verdict() == taken_over and run.last_attempt() == driver.attempt


def test_a_cancel_that_no_signal_brings_is_found_in_the_run_directory(tmp_path: Path) -> None:
    """As when there was no step yet to be signalled."""
    run = make_run(tmp_path / "run", SAVE_WHEN_ASKED)
    with driver_on(run) as driver:
        wait_for(lambda: pids_of_ready_ranks(run, 1))
        write_json(run.cancel, {"requested_at": 1.0})
        exit_code, output = driver.end()
    assert exit_code == 0, output
    verdict = driver.verdict()
    assert (verdict["outcome"], verdict["cause"], verdict["step"]) == ("stopped", "cancelled", 7)


def test_a_signal_before_torchrun_is_ready_is_kept_for_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SAVE_WHEN_ASKED)
    with driver_on(run) as driver:
        wait_for(lambda: list(driver.attempt.path.glob("node-*.json")))
        driver.process.send_signal(signal.SIGTERM)
        exit_code, output = driver.end()
    verdict = driver.verdict()
    reasons = {0: "saved at step 7 after SIGTERM", 4: "asked to stop (SIGTERM), but the command left no stop.json"}
    assert verdict["reason"] == reasons[exit_code], output
    node = next(iter(driver.attempt.path.glob("node-*.json")))
    assert read_json(node)["exit_code"] == 1, "torchrun took the signal by its own handler"


def killed_mid_run(run: RunDir, driver: Driver, victim: int) -> list[int]:
    """Kill one process of a running attempt; the pids of all others below the driver."""
    nodes = [read_json(path) for path in driver.attempt.path.glob("node-*.json")]
    pids = [*pids_of_ready_ranks(run, 2), *(node["torchrun_pid"] for node in nodes), *(node["pid"] for node in nodes)]
    os.kill(victim, signal.SIGKILL)
    return [pid for pid in pids if pid != victim]


def test_a_killed_supervisor_leaves_a_verdict_and_no_orphans(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SAVE_WHEN_ASKED, gpus_per_node=2)
    with driver_on(run) as driver:
        wait_for(lambda: pids_of_ready_ranks(run, 2))
        name = read_json(driver.attempt.driver)["nodes"][0]
        others = killed_mid_run(run, driver, read_json(driver.attempt.node(name))["pid"])
        exit_code, output = driver.end()
        wait_for(lambda: not any(map(is_alive, others)), timeout_s=5)
    assert exit_code == 4, output
    assert driver.verdict()["reason"].startswith(f"the supervisor of {name} was killed by SIGKILL")


def test_a_killed_driver_takes_everything_with_it_after_the_ranks_have_saved(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SAVE_WHEN_ASKED, gpus_per_node=2)
    with driver_on(run) as driver:
        wait_for(lambda: pids_of_ready_ranks(run, 2))
        others = killed_mid_run(run, driver, driver.process.pid)
        wait_for(lambda: not any(map(is_alive, others)), timeout_s=20)
    assert read_json(run.attempt(0).stop) == {"signal": "SIGTERM", "step": 7}


def test_a_run_directory_that_is_removed_under_the_run_ends_it_in_one_line_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run", SAVE_WHEN_ASKED, gpus_per_node=2)
    with driver_on(run) as driver:
        wait_for(lambda: pids_of_ready_ranks(run, 2))
        name = read_json(driver.attempt.driver)["nodes"][0]
        node = read_json(driver.attempt.node(name))
        pids = [*pids_of_ready_ranks(run, 2), node["torchrun_pid"], node["pid"]]
        gone = run.path.rename(tmp_path / "gone")
        shutil.rmtree(gone, ignore_errors=True)
        exit_code, output = driver.end()
        wait_for(lambda: not any(map(is_alive, pids)), timeout_s=5)
    assert exit_code == 2, output
    assert f"{run.path}: was removed while the run was at work" in output and "Traceback" not in output


def test_a_run_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TELL_WORLD)
    run.attempts.write_text("in the way")
    command = [sys.executable, "-m", "orchestrator.job", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith(f"driver: {run.attempts / '000'}: cannot be created: ")


def test_a_failed_start_is_a_verdict_too_and_the_next_attempt_has_the_next_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TELL_WORLD, gpus_per_node=3)
    with driver_on(run) as driver:
        assert driver.end()[0] == 4
    verdict = driver.verdict()
    assert verdict["outcome"] == "failed" and "8 cannot be shared evenly by 3 ranks" in verdict["reason"]
    assert "\n" not in verdict["reason"]
    run.plan.write_text("{}")
    with driver_on(run) as driver:
        assert driver.end()[0] == 4
    assert read_json(run.attempt(1).verdict)["outcome"] == "failed"


def test_a_run_that_has_saved_is_not_trained_on_at_another_batch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TELL_WORLD, batch={"per_gpu": 4})
    with driver_on(run) as driver:
        assert driver.end()[0] == 0
    write_atomically(run.recipe, run.recipe.read_text().replace("gpus_per_node: 1", "gpus_per_node: 2"))
    with driver_on(run) as driver:
        assert driver.end()[0] == 4
    verdict = read_json(run.attempt(1).verdict)
    assert f"{run.recipe} batch.per_gpu: the run trains with an effective batch of 4 samples" in verdict["reason"]
    assert "on 2 ranks it would be an effective batch of 8 samples" in verdict["reason"]
    assert not run.attempt(1).launch.exists()
