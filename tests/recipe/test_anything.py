"""Whatever stands in a recipe, it is read or refused in plain words; nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.cli.render.plan import plan_screen
from orchestrator.cluster import LOCAL, Cluster
from orchestrator.documents import dump_yaml, parse_document
from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.effective import BATCH_CHECKS
from orchestrator.plan.explain import explain
from orchestrator.plan.plan import make_plan, plan_to_json, requested_allocation
from orchestrator.plan.resources import resource_checks
from orchestrator.recipe.check import RULES
from orchestrator.recipe.interpolation import from_environment, interpolated
from orchestrator.recipe.overrides import with_overrides
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import target_checks
from orchestrator.run_dir import RunDir
from orchestrator.survey import survey

KEYS = [
    *Recipe.model_fields,
    "target",
    "args",
    "effective",
    "lr",
    "steps",
    "epochs",
    "warmup",
    "every",
    "variables",
    "x",
]
WORDS = [
    "sgd",
    "adamw",
    "model:build",
    "1e-3",
    "2:00:00",
    "${seed}",
    "${plan.lr}",
    "${oc.env:HOME}",
    "${",
    "\\${x}",
    "é",
    "",
]

INTEGERS = st.integers(-2, 2**70) | st.integers(10**300, 10**400)
anything = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
GOOD: dict[str, Any] = {
    "name": "good",
    "command": ["train.py"],
    "batch": {"effective": 10},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "duration": {"steps": 10},
}


def told(text: str, *overrides: str) -> tuple[Problem, ...]:
    """Everything that a whole survey says of a recipe."""
    document = parse_document(text, "recipe.yaml", RecipeError)
    document = from_environment(interpolated(with_overrides(document, overrides)))
    site = Cluster.model_validate({"name": "site", "scheduler": "local", "partitions": {"a": {"nodes": NODES}}})
    checks = (*RULES, *target_checks(Path(__file__).parent), *resource_checks(site), *BATCH_CHECKS)
    return survey(Recipe, document, checks).problems


NODES = {"num_nodes": 2, "cpus": 4}
changes = st.dictionaries(st.sampled_from(KEYS), anything, max_size=5)


@given(changes)
def test_a_recipe_with_anything_in_it_is_read_or_refused_in_plain_words(changes: dict[str, Any]) -> None:
    for problem in told(dump_yaml({**GOOD, **changes})):
        assert problem.where.startswith("recipe.yaml:")
        assert problem.as_json()["line"]
        assert problem.what and problem.fix
        assert "pydantic" not in str(problem)
        assert "\n" not in f"{problem.where}{problem.what}{problem.fix}"


@given(changes, st.sampled_from(KEYS), st.sampled_from(KEYS), anything)
def test_an_override_with_anything_in_it_is_read_or_refused_by_its_own_words(
    changes: dict[str, Any], above: str, key: str, value: Any
) -> None:
    override = f"{above}.{key}={dump_yaml({'it': value}).removeprefix('it:').strip()}"
    for problem in told(dump_yaml({**GOOD, **changes}), override):
        assert problem.where.startswith(("recipe.yaml:", f"--set {override}"))
        assert problem.what and problem.fix


FIELDS = [
    "batch.effective",
    "batch.per_gpu",
    "batch.micro",
    "batch.sequence_length",
    "optimizer.lr",
    "optimizer.base_batch",
    "optimizer.eps",
    "optimizer.weight_decay",
    "duration.steps",
    "duration.samples",
    "duration.epochs",
    "duration.tokens",
    "schedule.warmup.samples",
    "schedule.warmup.epochs",
    "schedule.warmup.ratio",
    "datasets.0.num_samples",
    "datasets.0.tokens_per_sample",
    "resources.num_nodes",
    "resources.gpus_per_node",
    "resources.cpus_per_gpu",
    "resources.walltime",
    "resources.memory",
]
EXTREMES = [5e-324, 1e-300, 1e-3, 1, 2, 3, 64, 2**31, 2**63 - 1, 2**63, 10**30, 10**400, 1e12, 1e300, 1e308]
TRAINED = """
name: good
model: {target: model:build}
loss: {target: model:loss}
datasets: [{name: a, target: model:data, num_samples: 6400, tokens_per_sample: 8}]
batch: {effective: 64}
optimizer: {name: adamw, lr: 1e-3, base_batch: 64, weight_decay: 0.01}
schedule: {name: cosine}
duration: {}
"""


@example({"batch.effective": 10**400}, False)
@example({"optimizer.base_batch": 10**400}, False)
@example({"datasets.0.num_samples": 10**400}, False)
@example({"duration.epochs": 1e308}, False)
@example({"schedule.warmup.epochs": 1e308, "duration.samples": 10}, False)
@example({"optimizer.lr": 5e-324, "batch.effective": 1}, False)
@example({"optimizer.lr": 1e308, "batch.effective": 640}, False)
@given(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(EXTREMES), max_size=5), st.booleans())
def test_numbers_of_any_size_are_planned_or_refused(values: dict[str, float], per_gpu: bool) -> None:
    if per_gpu:
        values = {"batch.per_gpu": 8, **values}
    if not any(key.startswith("duration") for key in values):
        values = {**values, "duration.epochs": 2}
    overrides = [f"{key}={value}:00:00" if "walltime" in key else f"{key}={value}" for key, value in values.items()]
    overrides += ["batch.effective=null"] if per_gpu else []
    document = with_overrides(parse_document(TRAINED, "recipe.yaml", RecipeError), overrides)
    found = survey(Recipe, document, (*RULES, *BATCH_CHECKS))
    if found.problems:
        return
    try:
        plan = make_plan(found.value, LOCAL, requested_allocation(found.value, LOCAL, accelerator="cpu"))
    except RecipeError:
        return
    json.dumps(plan_to_json(plan), allow_nan=False)
    json.dumps([told.as_json() for told in explain(plan, found.value)], allow_nan=False)
    assert plan_screen(plan, found.value, RunDir(Path("/runs/a")), cwd=Path("/runs"))
