"""Ranks that really are slow are named, with figures near the truth, and training does not change by that."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from orchestrator.run_dir import RunDir
from orchestrator.tracking.attempts import read_history
from orchestrator.tracking.events import EXCHANGE
from orchestrator.tracking.step_times import StepTimes
from orchestrator.tracking.stragglers import EVENT, Straggler
from orchestrator.worker.stragglers import WINDOW_STEPS
from tests.support.worlds import events_of, make_run, metrics_of, run_world
from tests.worker.recipes import CODE, POINTS, recipe
from tests.worker.test_session import LOOP, own_run

ITEMS = 4
"""Samples of each rank in a step: two micro-steps of two."""
ALL_S = 0.01
"""Seconds that every forward pass takes on every rank."""


def slow_run(folder: Path, world_size: int, *, steps: int, data: dict[str, Any], slow_s: float = 0.0) -> RunDir:
    points = {"target": "slow:SlowPoints", "args": {"size": 64, **data}}
    changes = {
        "model": {"target": "slow:slow_network", "args": {"all_s": ALL_S, "slow_s": slow_s}},
        "datasets": [{"name": "points", "num_samples": 64, **points}],
        "validation": [],
        "metrics": {},
        "batch": {"effective": ITEMS * world_size, "micro": 2},
        "duration": {"samples": steps * ITEMS * world_size},
        "schedule": {"name": "constant"},
        "checkpoint": {"every": {"steps": steps}},
    }
    return make_run(folder, recipe(POINTS, **changes), CODE)


def step_s(run: RunDir, steps: range) -> float:
    """Mean seconds of these steps."""
    return fmean(value for step, value in metrics_of(run, "train/step_time_s").items() if step in steps)


def test_a_rank_whose_data_are_slow_is_named_and_its_end_is_told(tmp_path: Path) -> None:
    """Rank 2 of three waits 100 ms in each step for its data, in 120 steps; all of them wait for it."""
    data = {"delay_s": 0.025, "slow_items": 120 * ITEMS}
    run = slow_run(tmp_path / "run", 3, steps=620, data=data)
    attempt = run_world(run, 3, SLOW_RANKS="2")
    began, ended = events_of(run, EVENT)
    assert (began["rank"], began["node"], began["slow_at"], began["until_step"]) == (2, "node1", "data", None)
    assert 3 < began["times_median"] < 1.1 * (0.1 + 2 * ALL_S) / (2 * ALL_S)
    assert began["cost"] == pytest.approx(0.1 / step_s(run, range(20, 100)), rel=0.15)
    assert WINDOW_STEPS < began["since_step"] < 60
    assert ended == {**began, "until_step": ended["until_step"]} and 90 < ended["until_step"] < 220
    assert [one.as_detail() for one in read_history(run, StepTimes(run.path)).stragglers] == [ended]
    said = [line for line in attempt.rank_log(0).read_text().splitlines() if "slow" in line]
    assert said == [f"orchestrate: {Straggler(**each).sentence()}" for each in (began, ended)]


def test_a_rank_that_computes_slowly_is_named_and_where_all_are_slow_nobody_is(tmp_path: Path) -> None:
    """The same run twice, in which one forward pass or all of them take 15 ms more: its losses are the same bits."""
    data = {"delay_s": 0.0}
    run, even = (slow_run(tmp_path / name, 2, steps=220, data=data, slow_s=0.015) for name in ("run", "even"))
    run_world(run, 2, SLOW_RANKS="1")
    (named,) = events_of(run, EVENT)
    assert (named["rank"], named["slow_at"], named["until_step"]) == (1, "compute", None)
    assert 1.4 < named["times_median"] < 1.1 * 2.5
    assert named["cost"] == pytest.approx(0.03 / step_s(run, range(50, 220)), rel=0.25)
    run_world(even, 2, SLOW_RANKS="0,1")
    assert events_of(even, EVENT) == []
    assert metrics_of(even, "train/loss") == metrics_of(run, "train/loss")
    assert len(metrics_of(run, "train/loss")) == 220


def test_in_a_loop_of_ones_own_a_slow_rank_is_named_too(tmp_path: Path) -> None:
    script = LOOP.replace("from model import accuracy, cross_entropy, network", "from model import cross_entropy")
    script = script.replace("network(dropout=DROPOUT)", f"slow_network({ALL_S}, 0.015)")
    script = script.replace("import torch\n", "import torch\nfrom slow import slow_network\n", 1)
    changes = {"batch": {"effective": 8, "micro": 2}, "duration": {"samples": 220 * 8}}
    run = own_run(tmp_path / "own", script, **changes, schedule={"name": "constant"})
    run_world(run, 2, SLOW_RANKS="0")
    (named,) = events_of(run, EVENT)
    assert (named["rank"], named["slow_at"]) == (0, "compute")
    assert max(metrics_of(run, EXCHANGE)) > 200
    assert named["cost"] == pytest.approx(0.03 / step_s(run, range(50, 220)), rel=0.25)
