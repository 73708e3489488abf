"""How soon a run goes on, on a machine that does nothing else: a start anew costs hardly more than the first one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.faults import SLURMD_TIMEOUT_S, report, started, wait_until_done
from tests.slurm.slurm_lab import SlurmLab
from tests.support.tracked import records

pytestmark = pytest.mark.bench
MOST_COLD_STARTS = 1.5


def test_after_the_death_of_a_rank(lab: SlurmLab, tmp_path: Path) -> None:
    run = started(lab, tmp_path)
    rank = next(record["pid"] for record in records(run.path, "000.node2.rank-1.log") if record["kind"] == "start")
    killed_at = time.time()
    os.kill(rank, signal.SIGKILL)
    wait_until_done(lab, run)
    assert report("a rank killed", run, killed_at) <= MOST_COLD_STARTS


def test_after_the_loss_of_a_node(lab: SlurmLab, tmp_path: Path, cable: Callable[..., None]) -> None:
    """Slurm may take its SlurmdTimeout to know of it."""
    run = started(lab, tmp_path, "--set", "batch.on_indivisible=uneven", nodes=3)
    pulled_at = time.time()
    cable(2)
    wait_until_done(lab, run)
    assert report("a node lost", run, pulled_at, allowed_s=SLURMD_TIMEOUT_S) <= MOST_COLD_STARTS
