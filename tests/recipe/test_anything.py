"""Whatever stands in a recipe, it is read or refused in plain words; nothing else happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster import Cluster
from orchestrator.documents import dump_yaml, parse_document
from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.effective import BATCH_CHECKS
from orchestrator.plan.resources import resource_checks
from orchestrator.recipe.check import RULES
from orchestrator.recipe.interpolation import from_environment, interpolated
from orchestrator.recipe.overrides import with_overrides
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import target_checks
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

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.sampled_from(WORDS),
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
