"""What the exchange of gradients takes, by DDP's own stop-watches: in real worlds."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import torch

from orchestrator.tracking.events import EXCHANGE, STEP_TIME
from orchestrator.tracking.report.usage import read_usage
from orchestrator.tuning.amp_law import MOST_EXCHANGE_SHARE
from orchestrator.worker.exchange import Exchange
from tests.support.worlds import metrics_of, run_world
from tests.worker.test_slow_ranks import slow_run

AT_ONCE: dict[str, Any] = {"delay_s": 0.0}


def test_exchanges_that_ddp_has_measured_are_journaled(tmp_path: Path) -> None:
    """Its first ten, and each hundredth. What they come to where they are slow: tests/slurm/test_slow_node.py."""
    run = slow_run(tmp_path / "run", 2, steps=120, data=AT_ONCE)
    run_world(run, 2)
    measured, took = metrics_of(run, EXCHANGE), metrics_of(run, STEP_TIME)
    assert 1 not in measured and min(measured) < 20 and max(measured) > 100
    assert all(0 <= seconds < max(took.values()) for seconds in measured.values())


def test_a_rank_that_the_others_wait_for_is_no_exchange(tmp_path: Path) -> None:
    """Rank 0 waits 30 ms of each step for rank 1, which waits for nobody; there is little to exchange."""
    run = slow_run(tmp_path / "run", 2, steps=120, data=AT_ONCE, slow_s=0.015)
    run_world(run, 2, SLOW_RANKS="1")
    share = read_usage(run.path).exchange_share
    assert share is not None and share < MOST_EXCHANGE_SHARE < 0.030 / median(metrics_of(run, STEP_TIME).values())


def test_a_rank_alone_exchanges_nothing(tmp_path: Path) -> None:
    run = slow_run(tmp_path / "run", 1, steps=20, data=AT_ONCE)
    run_world(run, 1)
    assert metrics_of(run, STEP_TIME) and metrics_of(run, EXCHANGE) == {}
    assert read_usage(run.path).exchange_share is None
    assert Exchange(torch.nn.Linear(1, 1)).exposed_s() is None
