"""What makes two runs the same experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.recipe.fingerprint import fingerprint
from orchestrator.recipe.read import read_recipe
from orchestrator.recipe.schema import Recipe

TINY = Path(__file__).parent.parent / "data" / "recipes" / "tiny.yaml"


def of(*overrides: str, code: str = "abc") -> str:
    return fingerprint(read_recipe(TINY, overrides).recipe, code)


def test_it_is_sha256_in_hex_and_the_same_each_time() -> None:
    assert of() == of()
    assert len(of()) == 64
    int(of(), 16)


@pytest.mark.parametrize(
    "override",
    [
        "resources.num_nodes=2",
        "loader.workers=1",
        "tuning.workers=off",
        "tracking.sample_ids=true",
        "hang_timeout=0:10:00",
        "preflight=true",
        "precision=fp64",
    ],
)
def test_where_and_how_fast_does_not_enter(override: str) -> None:
    assert of(override) == of()


@pytest.mark.parametrize(
    "override",
    ["seed=8", "batch.effective=32", "model.args.width=8", "precision=fp32", "compile=true", "env.variables.A=1"],
)
def test_what_is_computed_enters(override: str) -> None:
    assert of(override) != of()


@pytest.mark.parametrize(("mode", "enters"), [("off", False), ("suggest", False), ("auto", True)])
def test_a_precision_that_may_change_by_itself_enters(mode: str, enters: bool) -> None:
    assert (of("precision=fp32", f"tuning.amp={mode}") != of("precision=fp32")) is enters


def test_the_code_enters() -> None:
    assert of(code="abd") != of()


def test_a_batch_that_the_allocation_decides_enters() -> None:
    recipe = read_recipe(TINY, ("batch.effective=null", "batch.per_gpu=16")).recipe
    on_one, on_four, again = (fingerprint(recipe, "abc", decided_batch=batch) for batch in (16, 64, 16))
    assert on_one == again != on_four


def test_the_order_of_keys_and_the_form_of_a_number_do_not_enter() -> None:
    assert of("optimizer.lr=1e-1", "model.args={b: 1, a: 2}") == of("optimizer.lr=0.1", "model.args={a: 2, b: 1}")


def test_a_secret_does_not_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "one")
    first = of("env.variables.T=${oc.env:A_TOKEN}")
    monkeypatch.setenv("A_TOKEN", "another")
    assert of("env.variables.T=${oc.env:A_TOKEN}") == first


FIRST = {
    "name": "first",
    "seed": 7,
    "model": {"target": "model:build", "args": {"width": 16}},
    "loss": {"target": "model:loss"},
    "datasets": [{"name": "a", "target": "data:a", "num_samples": 64, "chars_per_sample": 9}],
    "validation": [{"name": "b", "target": "data:b", "num_samples": 32}],
    "batch": {"effective": 16, "micro": 8},
    "optimizer": {"name": "adamw", "lr": 0.1, "base_batch": 8, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup": {"steps": 2}},
    "duration": {"epochs": 4},
}
"""As the first version knew it; its fingerprint then."""
FIRST_FINGERPRINT = "a14a7fa116783980b36541401e1cd36690bad2c9d6351e0d7739b845e317d763"


def test_a_recipe_of_the_first_version_keeps_its_fingerprint() -> None:
    """A new key must not make another experiment of a recipe that does not use it: list it in ADDED_LATER."""
    assert fingerprint(Recipe.model_validate(FIRST), "abc") == FIRST_FINGERPRINT


@pytest.mark.parametrize(
    "override",
    [
        "batch.unit=samples",
        "batch.equal_micro=false",
        "batch.micro_multiple=1",
        "optimizer.args={}",
        "activation_checkpointing=false",
        "datasets.0.iterable=false",
    ],
)
def test_a_later_key_at_its_default_does_not_enter(override: str) -> None:
    assert of(override) == of()


@pytest.mark.parametrize(
    "overrides",
    [
        ("batch.micro=8", "batch.equal_micro=true"),
        ("batch.micro=8", "batch.micro_multiple=8"),
        ("batch.micro=8", "activation_checkpointing=true"),
        ("batch.micro=8", "datasets.0.iterable=true"),
        ("batch.micro=8", "mixture.strategy=round_robin"),
        ("batch.micro=8", "batch.unit=tokens", "batch.sequence_length=4"),
    ],
)
def test_a_later_key_that_is_used_enters(overrides: tuple[str, ...]) -> None:
    assert of(*overrides) != of("batch.micro=8")


def test_what_only_a_warning_hangs_on_does_not_enter() -> None:
    assert of("batch.critical=4", "datasets.0.language=zh", "validation.0.language=zh") == of()
