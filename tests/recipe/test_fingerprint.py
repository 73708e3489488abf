"""What makes two runs the same experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.recipe.fingerprint import fingerprint
from orchestrator.recipe.read import read_recipe

TINY = Path(__file__).parent.parent / "data" / "recipes" / "tiny.yaml"


def of(*overrides: str, code: str = "abc") -> str:
    return fingerprint(read_recipe(TINY, overrides).recipe, code)


def test_it_is_sha256_in_hex_and_the_same_each_time() -> None:
    assert of() == of()
    assert len(of()) == 64
    int(of(), 16)


@pytest.mark.parametrize(
    "override", ["resources.num_nodes=2", "loader.workers=1", "tracking.sample_ids=true", "precision=fp64"]
)
def test_where_and_how_fast_does_not_enter(override: str) -> None:
    assert of(override) == of()


@pytest.mark.parametrize(
    "override", ["seed=8", "batch.effective=32", "model.args.width=8", "precision=fp32", "env.variables.A=1"]
)
def test_what_is_computed_enters(override: str) -> None:
    assert of(override) != of()


def test_the_code_enters() -> None:
    assert of(code="abd") != of()


def test_the_order_of_keys_and_the_form_of_a_number_do_not_enter() -> None:
    assert of("optimizer.lr=1e-1", "model.args={b: 1, a: 2}") == of("optimizer.lr=0.1", "model.args={a: 2, b: 1}")


def test_a_secret_does_not_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "one")
    first = of("env.variables.T=${oc.env:A_TOKEN}")
    monkeypatch.setenv("A_TOKEN", "another")
    assert of("env.variables.T=${oc.env:A_TOKEN}") == first
