"""Runs of the worker's own loop as `submit` leaves them, for the driver itself; and what their science must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import LOCAL
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.plan.plan import make_plan, plan_to_json, requested_allocation
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from tests.support import worlds
from tests.support.worlds import metrics_of, sample_ids_of
from tests.worker.recipes import CODE, POINTS, recipe

CLUSTER = LOCAL.model_copy(update={"accelerator": "cpu"})
FAULTY = recipe(
    POINTS, loss={"target": "faults:cross_entropy"}, batch={"effective": 16}, resources={"gpus_per_node": 2}
)
"""Two ranks, of which one may be told a fault by $FAULT."""


def make_run(folder: Path, recipe: Mapping[str, Any]) -> RunDir:
    """A submitted run of `recipe` with the worker tests' models and data, on CPU ranks of this machine."""
    run = worlds.make_run(folder, recipe, CODE)
    for room in (run.journal, run.forward, run.job_logs):
        make_private_dir(room)
    wanted = Recipe.model_validate(recipe)
    plan = make_plan(wanted, CLUSTER, requested_allocation(wanted, CLUSTER, accelerator="cpu"))
    write_json(run.environment, {})
    write_json(run.cluster, CLUSTER.model_dump(mode="json"))
    write_json(run.plan, plan_to_json(plan))
    write_json(run.job, {"backend": "local", "job_id": "local:1:1", "first_attempt": 0})
    return run


def verdicts(run: RunDir) -> list[dict[str, Any]]:
    """Of all attempts, in their order."""
    return [read_json(attempt.verdict) for attempt in run.all_attempts()]


def assert_same_science(run: RunDir, undisturbed: RunDir) -> None:
    """Every step once, on the same samples, and the same losses to the rounding of fp64.

    A killed rank takes with it what it had not written yet: its part of the last steps' ids and losses.
    """
    assert metrics_of(run, "train/lr") == metrics_of(undisturbed, "train/lr")
    found, expected = metrics_of(run, "train/loss"), metrics_of(undisturbed, "train/loss")
    assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-12, abs=0)
    last = read_json(run.attempt(0).verdict)["checkpoint_step"]
    lost_with_it = expected.keys() & {last - 2, last - 1, last}
    assert expected.keys() - found.keys() <= lost_with_it
    ids, wanted_ids = sample_ids_of(run), sample_ids_of(undisturbed)
    assert all(ids[step] == wanted_ids[step] for step in expected.keys() - lost_with_it)
    assert all(set(ids[step]) <= set(wanted_ids[step]) for step in lost_with_it)
    final, wanted = (read_json(one.last_attempt().done)["metrics"] for one in (run, undisturbed))
    assert final["val/loss"] == pytest.approx(wanted["val/loss"], rel=1e-12, abs=0)
