"""What a run survives inside its allocation, by the real driver: the science is that of a run that nothing befell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from tests.job.runs import ROOT, driver_on
from tests.job.trained import FAULTY, assert_same_science, make_run, verdicts


def driven(
    folder: Path, fault: dict[str, Any] | None, *, recipe: Mapping[str, Any] = FAULTY, **env: str
) -> tuple[RunDir, int, str]:
    """A run to its end, with a fault; the driver's exit code, and what it printed."""
    run = make_run(folder, recipe)
    if fault is not None:
        env["FAULT"] = json.dumps(fault)
    with driver_on(run, env=env) as driver:
        return run, *driver.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run, exit_code, output = driven(tmp_path_factory.mktemp("runs") / "undisturbed", None)
    assert exit_code == 0, output
    return run


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("kill", "rank 1 on .* was killed by SIGKILL"),
        ("kill torchrun", "torchrun on .* was killed by SIGKILL"),
        ("kill supervisor", "the supervisor of .* was killed by SIGKILL"),
    ],
)
def test_whatever_is_killed_the_run_goes_on_in_its_allocation(
    tmp_path: Path, undisturbed: RunDir, do: str, reason: str
) -> None:
    run, exit_code, output = driven(tmp_path / "run", {"do": do, "rank": 1, "call": 9, "attempt": 0})
    assert exit_code == 0, output
    first, last = verdicts(run)
    assert (first["cause"], first["final"]) == ("killed", False), first
    assert re.match(reason, first["reason"])
    assert first["then"] == "attempt 001: started again from the newest checkpoint"
    assert first["checkpoint_step"] >= 3 and (last["cause"], last["final"]) == ("done", True)
    assert_same_science(run, undisturbed)


def test_a_rank_that_exhausts_the_hosts_memory_is_known_by_the_kernels_count_and_started_again(
    tmp_path: Path, undisturbed: RunDir, memory_group: Path
) -> None:
    fault = {"do": "exhaust memory", "rank": 1, "call": 9, "attempt": 0}
    run, exit_code, output = driven(tmp_path / "run", fault, MEMORY_GROUP=str(memory_group))
    assert exit_code == 0, output
    first, last = verdicts(run)
    assert (first["cause"], first["rank"], last["cause"]) == ("host_memory", 1, "done")
    assert "killed for want of host memory: raise resources.memory, or lower loader.workers" in first["reason"]
    assert_same_science(run, undisturbed)


def test_an_error_of_the_users_code_is_tried_once_more_and_told_with_its_line(tmp_path: Path) -> None:
    run, exit_code, output = driven(tmp_path / "run", {"do": "raise", "rank": 0, "call": 9})
    assert exit_code == 4, output
    told = verdicts(run)
    assert [(one["cause"], one["final"]) for one in told] == [("user_code", False), ("user_code", True)]
    assert told[0]["failed_step"] is not None
    assert "faults.py:" in told[1]["reason"] and "ValueError: this step is bad" in told[1]["reason"]


def test_a_run_that_is_killed_again_and_again_before_it_saves_is_stopped_with_its_reason(tmp_path: Path) -> None:
    run, exit_code, output = driven(tmp_path / "run", {"do": "kill", "rank": 1, "call": 1})
    assert exit_code == 4, output
    told = verdicts(run)
    assert len(told) == 3 and told[-1]["final"]
    assert told[-1]["reason"].endswith("no new checkpoint in 3 attempts")


CLOCK_OF_NODE_1 = """
import os, pathlib
words = pathlib.Path("/proc/self/cmdline").read_text().split("\\0")[:-1]
if "--node-rank=1" in words and "orchestrator.node" in words and "FAKETIME" not in os.environ:
    os.execvp("faketime", ["faketime", "-f", "+30s", *words])
"""


@pytest.mark.parametrize(
    "fault", [None, {"do": "stop", "rank": 1, "call": 9, "attempt": 0}], ids=["no fault", "a hang"]
)
def test_a_node_whose_clock_is_half_a_minute_off_is_neither_silent_nor_blamed_for_others(
    tmp_path: Path, undisturbed: RunDir, fault: dict[str, Any] | None
) -> None:
    """The supervisor's clock, and with it that of its torchrun and its rank."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK_OF_NODE_1)
    two_nodes = {**FAULTY, "resources": {"num_nodes": 2, "gpus_per_node": 1}, "hang_timeout": "0:00:05"}
    run, exit_code, output = driven(tmp_path / "run", fault, recipe=two_nodes, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert exit_code == 0, output
    nodes = [read_json(path) for path in sorted(run.attempt(0).path.glob("node-*.json"))]
    assert 25 < nodes[1]["started_at"] - nodes[0]["started_at"] < 60
    told = verdicts(run)
    assert [one["cause"] for one in told] == (["done"] if fault is None else ["hung", "done"]), told[0]
    assert fault is None or told[0]["rank"] == 1
    assert_same_science(run, undisturbed)
