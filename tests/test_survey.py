"""Everything wrong is told at once, and nothing is concluded from what could not be read."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator.documents import dump_yaml, parse_document
from orchestrator.errors import ClusterError, Problem, RecipeError
from orchestrator.plan.effective import check_batch
from orchestrator.recipe.check import RULES
from orchestrator.recipe.overrides import with_overrides
from orchestrator.recipe.read import read_recipe
from orchestrator.recipe.schema import Recipe
from orchestrator.submit.prepare import read_both
from orchestrator.survey import surveyed

GOOD: dict[str, Any] = {
    "name": "good",
    "model": {"target": "model:build"},
    "loss": {"target": "model:loss"},
    "datasets": [
        {"name": "a", "target": "data:a", "num_samples": 100, "tokens_per_sample": 8},
        {"name": "b", "target": "data:b", "num_samples": 60, "tokens_per_sample": 9},
    ],
    "validation": [{"name": "c", "target": "data:c", "num_samples": 10}],
    "metrics": {"accuracy": {"target": "model:accuracy"}},
    "batch": {"effective": 32, "micro": 8, "on_indivisible": "nearest", "tolerance": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.1, "base_batch": 16, "momentum": 0.9, "nesterov": True, "scaling": "linear"},
    "schedule": {"name": "inverse_sqrt", "warmup": {"epochs": 1}},
    "duration": {"tokens": 10_000},
    "evaluation": {"every": {"epochs": 1}},
    "resources": {"num_nodes": 2, "gpus_per_node": 4, "walltime": "2:00:00"},
    "env": {"variables": {"A": "b"}},
}


def problems_of(data: dict[str, Any], *overrides: str) -> tuple[Problem, ...]:
    document = with_overrides(parse_document(dump_yaml(data), "good.yaml", RecipeError), overrides)
    try:
        surveyed(Recipe, document, (*RULES, check_batch), RecipeError)
    except RecipeError as error:
        return error.problems
    return ()


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path in `value` but the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *paths(item, (*path, key)))]


def test_the_good_recipe_is_good() -> None:
    assert problems_of(GOOD) == ()


def test_whatever_field_is_broken_no_other_field_is_blamed() -> None:
    draw = random.Random(7)
    places = paths(GOOD)
    for _ in range(400):
        data, broken = copy.deepcopy(GOOD), []
        for path in draw.sample(places, k=draw.randint(1, 4)):
            holder: Any = data
            try:
                for key in path[:-1]:
                    holder = holder[key]
                holder[path[-1]]
            except (KeyError, IndexError, TypeError):
                continue  # it lies below what is broken already
            holder[path[-1]] = draw.choice([{"no": {"such": 1}}, [[]], -7.25])
            broken.append(".".join(map(str, path)))
        blamed = [problem.as_json()["key"] for problem in problems_of(data)]
        assert blamed
        for key in blamed:
            assert any(str(key).startswith(path) or path.startswith(str(key)) for path in broken), (key, broken)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (("duration.tokens=many", "optimizer.nesterov=true", "optimizer.momentum=0.0"), 2),
        (("resources.num_nodes=", "batch.effective=x", "schedule.warmup.epochs=[}", "name=a/b"), 3),
        (("batch.micro=autp", "batch.nearest=1", "loader.worker=2"), 3),
    ],
)
def test_wrong_overrides_are_told_together_and_by_their_own_words(overrides: tuple[str, ...], keys: int) -> None:
    problems = problems_of(GOOD, *overrides)
    assert len(problems) >= keys
    assert {problem.where.split("=")[0] for problem in problems if problem.where.startswith("--set")}


def test_rules_still_speak_beside_a_broken_type() -> None:
    data = {**GOOD, "precision": "bf61", "schedule": {"name": "inverse_sqrt"}}
    assert [problem.as_json()["key"] for problem in problems_of(data)] == ["schedule.name", "precision"]


def test_a_misspelt_key_silences_the_rules_about_what_was_meant() -> None:
    data = copy.deepcopy(GOOD)
    data["schedule"]["warm_up"] = data["schedule"].pop("warmup")
    assert [problem.what for problem in problems_of(data)] == ["unknown key 'warm_up'"]


def test_the_profile_and_the_recipe_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_yaml({**GOOD, "precision": "bf61"}))
    (tmp_path / "site.yaml").write_text("name: site\nscheduler: slrum\n")
    with pytest.raises(RecipeError) as caught:
        read_both(tmp_path / "recipe.yaml", overrides=(), profile=tmp_path / "site.yaml")
    told = str(caught.value)
    assert "did you mean 'bf16'?" in told
    assert "did you mean 'slurm'?" in told
    assert "there is no" in told


def test_a_bug_in_a_rule_is_not_swallowed_when_everything_could_be_read(tmp_path: Path) -> None:
    def broken_rule(recipe: Recipe) -> tuple[Problem, ...]:
        return (recipe.nothing_of_that_name,)  # type: ignore[attr-defined]

    (tmp_path / "recipe.yaml").write_text(dump_yaml(GOOD))
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        read_recipe(tmp_path / "recipe.yaml", checks=(broken_rule,))


def test_a_profile_error_alone_is_a_cluster_error(tmp_path: Path) -> None:
    recipe = Path(__file__).parent / "data" / "recipes" / "tiny.yaml"
    (tmp_path / "site.yaml").write_text("name: site\nscheduler: slrum\n")
    with pytest.raises(ClusterError):
        read_both(recipe, overrides=(), profile=tmp_path / "site.yaml")
