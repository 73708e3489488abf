"""Runs of the worker's own loop as `submit` leaves them, for the driver itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.cluster import LOCAL
from orchestrator.files import make_private_dir, write_json
from orchestrator.plan.plan import make_plan, plan_to_json, requested_allocation
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from tests.support import worlds
from tests.worker.recipes import CODE

CLUSTER = LOCAL.model_copy(update={"accelerator": "cpu"})


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
