"""Whatever stands in a recipe, it is read or refused in plain words; nothing else happens."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.documents import dump_yaml, parse_document
from orchestrator.errors import RecipeError
from orchestrator.recipe.check import check_recipe
from orchestrator.recipe.interpolation import interpolated
from orchestrator.recipe.schema import Recipe
from orchestrator.survey import surveyed

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


@given(st.dictionaries(st.sampled_from(KEYS), anything, max_size=5))
def test_a_recipe_with_anything_in_it_is_read_or_refused(changes: dict[str, Any]) -> None:
    document = parse_document(dump_yaml({**GOOD, **changes}), "recipe.yaml", RecipeError)
    try:
        recipe = surveyed(Recipe, interpolated(document), (), RecipeError)
    except RecipeError as error:
        for problem in error.problems:
            assert problem.where.startswith("recipe.yaml:")
            assert problem.what
            assert "pydantic" not in str(problem)
    else:
        assert all(problem.what and problem.fix for problem in document.placed(check_recipe(recipe)))
