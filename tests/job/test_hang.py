"""A rank that hangs is found by its node, shown, and ended with all others: by the real driver."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.files import make_private_dir, read_json
from tests.job import trained
from tests.job.runs import Driver, driver_on
from tests.job.trained import make_run
from tests.support.waiting import is_alive, wait_for
from tests.support.worlds import metrics_of
from tests.worker.recipes import POINTS, recipe
from tests.worker.test_session import LOOP

ENDLESS = recipe(
    POINTS,
    batch={"effective": 16},
    duration={"steps": 100_000},
    schedule={},
    validation=[],
    metrics={},
    checkpoint={"every": {"steps": 100_000}},
    hang_timeout="0:00:06",
)
SLOWLY = {"DELAY_S": "0.01"}
"""80 ms a step."""


def ranks_of(driver: Driver) -> dict[int, psutil.Process]:
    """The processes of all ranks, by their numbers."""
    found = {}
    for path in driver.attempt.path.glob("node-*.json"):
        for process in psutil.Process(read_json(path)["torchrun_pid"]).children():
            found[int(process.environ()["RANK"])] = process
    return found


def stop_rank(driver: Driver, rank: int) -> list[psutil.Process]:
    """Stop a rank in the midst of training; all processes of the ranks, loaders too."""
    wait_for(lambda: max(metrics_of(driver.run, "train/loss", attempt=0), default=0) >= 6)
    ranks = ranks_of(driver)
    processes = [*ranks.values(), *(child for process in ranks.values() for child in process.children())]
    ranks[rank].send_signal(signal.SIGSTOP)
    return processes


def verdict_on(driver: Driver, timeout_s: float = 180) -> dict[str, Any]:
    """The verdict on attempt 0, as soon as it is there; whether another attempt follows or not."""
    wait_for(driver.attempt.verdict.exists, timeout_s)
    return driver.verdict()


def hung(driver: Driver, rank: int) -> tuple[dict[str, Any], str]:
    """Let a rank hang; the verdict, and the rank's stack. By then no process of the attempt is left."""
    processes = stop_rank(driver, rank)
    verdict = verdict_on(driver)
    wait_for(lambda: not any(is_alive(process.pid) for process in processes), timeout_s=3)
    stack = driver.attempt.stack(rank)
    assert stat.S_IMODE(stack.stat().st_mode) == 0o600
    return verdict, stack.read_text()


def test_a_rank_that_is_stopped_is_named_and_shown_though_the_other_waits_for_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe(ENDLESS, resources={"gpus_per_node": 2}, loader={"workers": 1}))
    with driver_on(run, env=SLOWLY) as driver:
        verdict, stack = hung(driver, rank=1)
    assert (verdict["outcome"], verdict["cause"], verdict["rank"]) == ("failed", "hung", 1)
    assert "gave no sign of life for" in verdict["reason"] and verdict["reason"].endswith("see logs/stack-1.txt")
    assert verdict["failed_step"] > 6 and verdict["asked_by"] is None
    assert stack.startswith("rank 1 gave no sign of life for") and "it is stopped" in stack.partition("\n")[0]
    assert "worker/train" in stack
    waiting = driver.attempt.stack(0).read_text()
    waits = ("_engine_run_backward", "_receive (", "gather (")
    assert any(place in waiting for place in waits), f"rank 0 waits for rank 1, but stands in {waiting}"
    node = read_json(next(driver.attempt.path.glob("node-*.json")))
    assert (node["state"], node["exit_code"], node["hang"]["rank"]) == ("ended", -9, 1)


def test_a_rank_of_another_node_is_named_and_without_py_spy_it_shows_itself(tmp_path: Path) -> None:
    """The other node keeps its stacks too, before it is told to end."""
    fake = make_private_dir(tmp_path / "bin") / "py-spy"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    run = make_run(tmp_path / "run", recipe(ENDLESS, resources={"num_nodes": 2}))
    with driver_on(run, env={**SLOWLY, "PATH": f"{fake.parent}:{os.environ['PATH']}"}) as driver:
        verdict, stack = hung(driver, rank=1)
    names = [node["name"] for node in read_json(driver.attempt.launch)["nodes"]]
    assert (verdict["cause"], verdict["rank"], verdict["node"]) == ("hung", 1, names[1])
    assert "most recent call first" in stack and "worker/train.py" in stack
    assert "most recent call first" in driver.attempt.stack(0).read_text()
    first, second = (read_json(driver.attempt.node(name)) for name in names)
    assert first["hang"] is None and second["hang"]["is_held"]
    assert first["asked"] == "SIGTERM" or first["exit_code"] == 1, "it was told, or its rank was gone before"


STUCK_LOOP = LOOP.replace(
    "        for batch in window:\n",
    """        if run.rank == 0 and window.step == 9:
            wait_for_nothing()
        for batch in window:
""",
).replace("with session.start()", "def wait_for_nothing():\n    threading.Event().wait()\n\nwith session.start()", 1)


def test_in_a_loop_of_ones_own_the_rank_that_does_not_come_is_named_and_not_the_one_that_waits(tmp_path: Path) -> None:
    """Neither is stopped: rank 1 has begun a backward pass, in which it waits for rank 0's gradients."""
    left_out = ("model", "loss", "metrics", "validation")
    own = {key: value for key, value in ENDLESS.items() if key not in left_out}
    optimizer = {"name": "adamw", "lr": 0.01}
    resources = {"gpus_per_node": 2}
    run = make_run(tmp_path / "run", {**own, "command": ["own.py"], "optimizer": optimizer, "resources": resources})
    (run.snapshot_recipe / "own.py").write_text("import threading\n" + STUCK_LOOP.replace("DROPOUT", "0.0"))
    with driver_on(run) as driver:
        verdict = verdict_on(driver)
    assert (verdict["cause"], verdict["rank"], verdict["failed_step"]) == ("hung", 0, 9)
    assert "wait_for_nothing" in driver.attempt.stack(0).read_text()


def test_a_run_that_hangs_is_stopped_as_fast_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has noticed yet: torchrun passes the signal on, and kills what does not save in time."""
    monkeypatch.setattr(trained, "CLUSTER", trained.CLUSTER.model_copy(update={"shutdown_grace_s": 4}))
    run = make_run(tmp_path / "run", recipe(ENDLESS, resources={"gpus_per_node": 2}, hang_timeout="1:00:00"))
    with driver_on(run, env=SLOWLY) as driver:
        processes = stop_rank(driver, rank=1)
        driver.process.send_signal(signal.SIGTERM)
        verdict = verdict_on(driver, timeout_s=30)
        wait_for(lambda: not any(is_alive(process.pid) for process in processes), timeout_s=5)
    assert (verdict["outcome"], verdict["cause"], verdict["asked_by"]) == ("failed", "asked", "SIGTERM")
