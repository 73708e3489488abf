"""What it costs to hold a plan against the live cluster: the questions and Slurm's own estimate included."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.slurm_lab import ROOT, SlurmLab
from tests.support.command_line import TINY

ROUNDS = 5
TRIES = 3
MOST = 2.0
"""Times a plan that asks nobody. A second in all, where that takes half of one."""
ENTRY = Path(sys.executable).parent / "orchestrate"

pytestmark = [pytest.mark.bench, pytest.mark.slurm]


def wall_s(cwd: Path, *words: str) -> float:
    argv = (str(ENTRY), "plan", str(TINY), "--cluster", str(ROOT / "cluster" / "dev.yaml"), *words)
    started = time.monotonic()
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)
    elapsed_s = time.monotonic() - started
    assert ("start " in done.stdout) == (not words), done.stdout
    return elapsed_s


def test_slurms_answers_take_a_plan_no_longer_than_the_plan_itself(lab: SlurmLab, tmp_path: Path) -> None:
    wall_s(tmp_path)
    for _ in range(TRIES):
        pairs = [(wall_s(tmp_path), wall_s(tmp_path, "--offline")) for _ in range(ROUNDS)]
        live, offline = (statistics.median(times) for times in zip(*pairs, strict=True))
        told = f"{live:.2f} s, of which Slurm {live - offline:.2f} s"
        print(f"\norchestrate plan --cluster: {told}: {live / offline:.2f} times one without (at most {MOST:g})")
        if live <= MOST * offline:
            break
    assert live <= MOST * offline
