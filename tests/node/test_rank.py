"""The step between torchrun and a rank's program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.files import make_private_dir
from orchestrator.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    make_private_dir(run.attempt(0).logs)
    make_private_dir(run.snapshot_recipe)
    return run


def become(run: RunDir, *command: str, rank: int = 1) -> tuple[int, str]:
    """The exit status of the rank, and what it left in its log."""
    shim = [sys.executable, "-m", "orchestrator.node.rank", str(run.path), "0", "--", *command]
    done = subprocess.run(shim, env={**os.environ, "RANK": str(rank)}, capture_output=True, timeout=30)
    assert (done.stdout, done.stderr) == (b"", b"")
    return done.returncode, run.attempt(0).rank_log(rank).read_text()


def test_the_command_writes_into_its_own_log_and_its_status_is_the_ranks(run: RunDir) -> None:
    status, log = become(run, "sh", "-c", "echo out; echo err >&2; pwd; exit 3")
    assert (status, log) == (3, f"out\nerr\n{run.snapshot_recipe}\n")
    assert run.attempt(0).rank_log(1).stat().st_mode & 0o777 == 0o600


def test_a_second_start_appends(run: RunDir) -> None:
    become(run, "echo", "first")
    assert become(run, "echo", "second")[1] == "first\nsecond\n"


def test_a_program_that_is_not_there_is_one_line_in_the_log(run: RunDir) -> None:
    assert become(run, "no-such-program") == (127, "no-such-program: cannot be started: No such file or directory\n")


def test_only_the_standard_library_stands_before_a_rank() -> None:
    code = "import sys, orchestrator.node.rank; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30).stdout.split()
    assert {"torch", "pydantic", "psutil", "numpy", "yaml"}.isdisjoint(loaded)
