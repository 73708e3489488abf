"""The schema can be told in words: in errors, and in docs/recipe.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.cluster import Cluster, NodeType, Partition
from orchestrator.kinds import kind_at, kind_of
from orchestrator.patterns import WORDS
from orchestrator.recipe import schema

ROOT = Path(__file__).parent.parent.parent
MODELS = [model for model in vars(schema).values() if isinstance(model, type) and issubclass(model, schema.Section)]


def fields(*models: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for model in models:
        yield from ((f"{model.__name__}.{name}", field) for name, field in model.model_fields.items())


@pytest.mark.parametrize(("name", "field"), [*fields(*MODELS, Cluster, Partition, NodeType)])
def test_every_field_has_a_description_and_what_is_required_an_example(name: str, field: FieldInfo) -> None:
    assert field.description
    assert field.examples or not field.is_required()


@pytest.mark.parametrize(("name", "field"), [*fields(*MODELS, Cluster, Partition, NodeType)])
def test_every_pattern_has_words(name: str, field: FieldInfo) -> None:
    checks = kind_of(field.annotation, field=field).checks
    assert {check.pattern for check in checks if getattr(check, "pattern", None)} <= set(WORDS)


def test_what_may_stand_at_a_path_is_found_through_lists_mappings_and_choices() -> None:
    assert kind_at(schema.Recipe, ("command", 3)).is_text  # type: ignore[union-attr]
    assert kind_at(schema.Recipe, ("precision",)).is_text  # type: ignore[union-attr]
    assert kind_at(schema.Recipe, ("metrics", "any", "target")).is_text  # type: ignore[union-attr]
    assert kind_at(schema.Recipe, ("optimizer", "betas", 1)).words == "a number"  # type: ignore[union-attr]
    assert kind_at(schema.Recipe, ("model", "args", "deep", "er")).words == "any value"  # type: ignore[union-attr]
    assert kind_at(schema.Recipe, ("model", "nothing")) is None
    assert kind_at(schema.Recipe, ("seed", "below")) is None


@pytest.mark.parametrize("constraint", ["ib", "ib&a100", "[full|mig]", "(a|b)&c", "[rack1*2&rack2*4]", "gpu:a100"])
def test_a_constraint_may_be_all_that_slurm_understands(constraint: str) -> None:
    assert schema.Resources(constraint=constraint).constraint == constraint


UNFIT = [
    *("", "a b", " a", "a\n", "a\t", "a\n#SBATCH --wrap=x", "a#b", "-a", "--a", "&a"),
    *("'a'", '"a"', "a\\b", "a;b", "a>b", "a!", "$(a)", "`a`", "{a}"),
]


@pytest.mark.parametrize("field", ["constraint", "partition", "account", "qos"])
@pytest.mark.parametrize("word", UNFIT)
def test_no_word_for_slurm_can_become_another_directive(field: str, word: str) -> None:
    with pytest.raises(ValueError, match=field):
        schema.Resources.model_validate({field: word})


def test_numbers_that_are_not_finite_or_have_the_wrong_kind_are_refused() -> None:
    for value in (float("nan"), float("inf"), True, "1"):
        with pytest.raises(ValueError, match="lr"):
            schema.Optimizer.model_validate({"name": "sgd", "lr": value})
    assert schema.Optimizer.model_validate({"name": "sgd", "lr": 1}).lr == 1.0
