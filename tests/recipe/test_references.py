"""Every interpolation that leads nowhere is told once, and nothing that only hangs on another is blamed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.documents import dump_yaml, parse_document
from orchestrator.errors import RecipeError
from orchestrator.recipe.interpolation import interpolated
from orchestrator.yaml_nodes import dotted


def told(**args: Any) -> dict[str, str]:
    """What is told of `model.args`, by the key below it."""
    text = dump_yaml({"model": {"args": args}, "seed": 3, "batch": {"effective": 16}})
    problems = interpolated(parse_document(text, "r.yaml", RecipeError)).problems
    return {problem.key.removeprefix("model.args."): f"{problem.what}; {problem.fix}" for problem in problems}


def test_a_name_that_is_nowhere_is_told_with_the_one_that_was_meant() -> None:
    assert told(a="${batch.efective}", b="${sed}", c="${batch.micro}", d="${nothing}", e="${batch.x}") == {
        "a": "there is no 'batch.efective' to insert; did you mean 'batch.effective'?",
        "b": "there is no 'sed' to insert; did you mean 'seed'?",
        "c": "there is no 'batch.micro' to insert; write batch.micro in the recipe: its default cannot be inserted",
        "d": "there is no 'nothing' to insert; choose one of: batch, model, seed",
        "e": "there is no 'batch.x' to insert; choose one of: batch.effective",
    }


def test_texts_that_hang_on_a_broken_one_are_not_blamed() -> None:
    assert list(told(a="${nothing}", b="${model.args.a}", c="x-${.b}-${seed}", d="${oc.env:HOME}", e="${.d}")) == [
        "a",
        "d",
    ]


def test_a_circle_is_told_at_its_members_and_not_where_it_is_entered() -> None:
    circle = told(a="${.b}", b="${.c}", c="${.a}", outside="${.a}", itself="${.itself}")
    assert sorted(circle) == ["a", "b", "c", "itself"]
    assert circle["a"] == "'${.b}' leads back to itself; write one of the values out"


def test_a_section_that_is_inserted_into_itself_is_a_circle() -> None:
    assert sorted(told(a={"b": "${model.args.a}"}, c={"d": 1}, e="${model.args.c}")) == ["a.b"]


def test_what_lies_behind_another_interpolation_is_followed() -> None:
    text = dump_yaml({"a": {"x": 1}, "b": "${a}", "c": "${b.x}", "d": "${e[1].f}", "e": [0, {"f": 5}], "g": "${e[9]}"})
    document = interpolated(parse_document(text, "r.yaml", RecipeError))
    assert (document.data["c"], document.data["d"]) == (1, 5)
    assert [problem.key for problem in document.problems] == ["g"]


def test_a_value_that_stands_twice_is_not_inserted_and_its_users_are_not_blamed() -> None:
    document = interpolated(parse_document("a: 1\na: 2\nb: ${a}\nc: ${b}\nd: ${e}\ne: 5\n", "r.yaml", RecipeError))
    assert [problem.key for problem in document.problems] == ["a"]
    assert document.unread == {("a",), ("b",), ("c",)}
    assert document.data["d"] == 5


def test_a_name_behind_a_misspelt_section_is_not_blamed() -> None:
    document = interpolated(parse_document("optimzer: {lr: 1}\nseed: ${optimizer.lr}\n", "r.yaml", RecipeError))
    assert document.problems == ()
    assert document.unread == {("seed",)}


@pytest.mark.parametrize("length", [300, 5000])
def test_a_long_chain_ends_in_words(length: int) -> None:
    names = "".join(f"a{index}: ${{a{index + 1}}}\n" for index in range(length))
    document = interpolated(parse_document(names + f"a{length}: ${{nothing}}\n", "r.yaml", RecipeError))
    assert [problem.key for problem in document.problems] == [f"a{length}"]
    assert len(document.unread) == length + 1


KEYS = ["a", "b", "c", "d"]
NAMES = [*KEYS, "a.b", ".a", "..b", "c.d", "b[1]", "b.0", "c[0].a", ".[1]"]
leaves = st.sampled_from([1, "x", None, *(f"${{{name}}}" for name in NAMES), "-${c.d}-", "${a}${b.c}"])
sections = st.dictionaries(st.sampled_from(KEYS), leaves, max_size=3)
trees = st.dictionaries(st.sampled_from(KEYS), leaves | sections | st.lists(leaves | sections, max_size=2))


@given(trees)
def test_a_document_has_problems_exactly_where_omegaconf_cannot_resolve_it(data: dict[str, Any]) -> None:
    document = interpolated(parse_document(dump_yaml(data), "r.yaml", RecipeError))
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(data), resolve=True)
    except (OmegaConfBaseException, RecursionError):
        assert document.problems
        assert {problem.key for problem in document.problems} <= {dotted(path) for path in document.unread}
    else:
        assert (document.data, document.problems) == (resolved, ())
