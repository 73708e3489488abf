"""The JSON Schema: it takes what the reader takes, and refuses what an editor can know to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.cluster import Cluster
from orchestrator.documents import parse_document
from orchestrator.errors import RecipeError
from orchestrator.recipe.json_schema import json_schema
from orchestrator.recipe.schema import Recipe

ROOT = Path(__file__).parent.parent.parent
BAD = ROOT / "tests" / "recipes_bad"
GOOD = sorted([*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "tests" / "data").rglob("*.yaml")])
PROFILES = sorted((ROOT / "cluster").glob("*.yaml"))
SEEN_BY_AN_EDITOR = (
    *("a_list", "eight_mistakes", "fraction_of_a_sample", "impossible_values", "language_in_words"),
    *("list_is_a_mapping", "micro_in_halves", "micro_misspelt", "misspelt_key", "misspelt_section"),
    *("missing_sections", "name_with_slash", "number_as_text", "number_for_name", "section_is_a_number"),
    *("target_without_colon", "truth_value_for_text", "unknown_choice", "unknown_key", "variable_name"),
    *("walltime_in_seconds", "walltime_unquoted"),
)
"""The broken recipes whose mistake is one of form."""

RECIPE = jsonschema.Draft202012Validator(json_schema("recipe"))
MINIMAL = {
    "name": "a",
    "model": {"target": "model:build"},
    "datasets": [{"name": "train", "target": "data:train", "num_samples": 10}],
    "loss": {"target": "model:loss"},
    "batch": {"effective": 4},
    "optimizer": {"name": "adamw", "lr": 0.1},
    "duration": {"epochs": 1},
}


def complaints(validator: Any, data: Any) -> list[str]:
    return [error.message for error in validator.iter_errors(data)]


@pytest.mark.parametrize("kind", ["recipe", "profile"])
def test_it_is_a_valid_schema_that_is_closed_to_unknown_keys_and_explains_every_key(kind: Any) -> None:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    sections = [schema, *(part for part in schema["$defs"].values() if part["type"] == "object")]
    assert all(section["additionalProperties"] is False for section in sections)
    for value in (value for section in sections for value in section["properties"].values()):
        assert value.get("description") or "$ref" in str(value), "a section may be explained where it is defined"
    model = Recipe if kind == "recipe" else Cluster
    assert list(schema["properties"]) == list(model.model_fields)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_every_good_recipe_of_the_repository_fits(path: Path) -> None:
    assert complaints(RECIPE, parse_document(path.read_text(), path.name, RecipeError).data) == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_of_the_repository_fits(path: Path) -> None:
    profile = jsonschema.Draft202012Validator(json_schema("profile"))
    assert complaints(profile, parse_document(path.read_text(), path.name, RecipeError).data) == []


@pytest.mark.parametrize("name", SEEN_BY_AN_EDITOR)
def test_a_mistake_of_form_is_seen_without_reading_the_recipe(name: str) -> None:
    assert complaints(RECIPE, yaml.safe_load((BAD / f"{name}.yaml").read_text()))


INTERPOLATED = {
    "batch": {"effective": "${optimizer.base_batch}", "on_indivisible": "${metrics.x}"},
    "optimizer": {"name": "adamw", "lr": "${a.b}", "betas": ["${a.b}", 0.9], "nesterov": "${a.b}"},
    "datasets": [{"name": "${name}-train", "target": "data:train", "num_samples": "${validation.0.num_samples}"}],
    "validation": "${datasets}",
    "evaluation": {"every": "${checkpoint.every}"},
    "command": ["train.py", "--lr=${plan.lr}"],
    "env": {"variables": {"TOKEN": "${oc.env:TOKEN}"}},
}


@pytest.mark.parametrize("key", INTERPOLATED)
def test_text_that_inserts_a_value_may_stand_for_a_value_of_any_form(key: str) -> None:
    assert complaints(RECIPE, {**MINIMAL, key: INTERPOLATED[key]}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"batch": {"effective": "sixteen"}},
        {"batch": {"effective": "{batch}"}},
        {"batch": {"effective": 0}},
        {"batch": {"on_indivisible": "nearby"}},
        {"validation": "datasets"},
        {"optimizer": {"name": "adamw", "lr": 0.1, "betas": [0.9]}},
        {"precision": "half"},
        {"resources": {"walltime": 7200}},
        {"seed": None},
    ],
    ids=str,
)
def test_any_other_text_or_value_does_not(change: dict[str, Any]) -> None:
    assert complaints(RECIPE, {**MINIMAL, **change})


def test_an_example_is_a_value_that_fits_where_it_stands() -> None:
    schema = json_schema("recipe")
    shown = 0
    for part in (schema, *schema["$defs"].values()):
        for value in part.get("properties", {}).values():
            for example in value.get("examples", ()):
                assert complaints(RECIPE.evolve(schema={**value, "$defs": schema["$defs"]}), example) == []
                shown += 1
    assert shown >= 9


def test_the_recipes_of_the_repository_name_the_shipped_schema_in_their_first_line() -> None:
    for recipe in (ROOT / "recipes").rglob("*.yaml"):
        mark, _, named = recipe.read_text().partition("\n")[0].partition("$schema=")
        assert mark == "# yaml-language-server: ", recipe
        assert (recipe.parent / named).resolve() == ROOT / "schemas" / "recipe.schema.json", recipe


@pytest.mark.parametrize(("name", "fits"), [("a-b", True), ("a b", False), ("", False)])
def test_an_asset_whose_name_plan_refuses_is_refused_by_the_schema_too(name: str, fits: bool) -> None:
    assert RECIPE.is_valid({**MINIMAL, "assets": {name: {"package": "a", "path": "b"}}}) == fits
