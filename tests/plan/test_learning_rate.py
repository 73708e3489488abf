"""The learning rate follows the batch by the optimizer's rule, and only when the recipe names a reference batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import Problem
from orchestrator.plan.learning_rate import (
    RULE_OF_OPTIMIZER,
    LearningRatePlan,
    half_life_beta,
    linear_scaling,
    plan_learning_rate,
    scaled_eps,
    scaled_weight_decay,
    sqrt_scaling,
)
from orchestrator.recipe.schema import Optimizer

sizes = st.integers(min_value=1, max_value=10**6)
ratios = st.floats(min_value=1 / 64, max_value=64)


def planned(effective_batch_size: int, **optimizer: Any) -> LearningRatePlan:
    plan = plan_learning_rate(Optimizer(**optimizer), effective_batch_size=effective_batch_size)
    assert isinstance(plan, LearningRatePlan)
    return plan


@pytest.mark.parametrize(
    ("name", "scaling", "rule", "peak_lr"),
    [
        *((name, "auto", "linear", 0.4) for name in ("sgd", "lars")),
        *((name, "auto", "sqrt", 0.2) for name in ("adam", "adamw", "nadam", "radam", "rmsprop", "adafactor", "lamb")),
        ("adamw", "linear", "linear", 0.4),
        ("sgd", "sqrt", "sqrt", 0.2),
        ("sgd", "none", "none", 0.1),
        ("other", "linear", "linear", 0.4),
        ("other", "none", "none", 0.1),
    ],
)
def test_four_times_the_batch_scales_the_lr_by_the_rule(name: Any, scaling: Any, rule: str, peak_lr: float) -> None:
    plan = planned(256, name=name, lr=0.1, scaling=scaling, base_batch=64)
    assert plan.rule == rule
    assert math.isclose(plan.peak_lr, peak_lr)


def test_for_an_optimizer_without_a_rule_nothing_is_guessed_when_the_batch_differs() -> None:
    other = Optimizer(name="other", lr=0.1, base_batch=64, target="optim:Lion")
    assert plan_learning_rate(other, effective_batch_size=256) == Problem(
        "optimizer.scaling",
        "the batch is 256, lr belongs to 64, and no rule is known for this optimizer",
        "write scaling: linear, sqrt or none: nothing is guessed here",
    )
    assert planned(64, name="other", lr=0.1, base_batch=64).peak_lr == 0.1


def test_every_optimizer_but_other_has_a_rule() -> None:
    names = Optimizer.model_fields["name"].annotation.__args__  # type: ignore[union-attr]
    assert set(names) - set(RULE_OF_OPTIMIZER) == {"other"}


def test_without_a_reference_batch_the_lr_is_taken_as_written() -> None:
    plan = planned(4096, name="sgd", lr=0.1)
    assert (plan.peak_lr, plan.factor, plan.would_scale) == (0.1, 1.0, ())


def test_the_reference_batch_itself_changes_nothing_to_the_last_bit() -> None:
    plan = planned(96, name="adamw", lr=0.1, base_batch=96, weight_decay=0.1)
    assert (plan.peak_lr, plan.would_scale) == (0.1, ())


def test_what_else_would_have_to_follow_the_batch_is_told() -> None:
    plan = planned(1024, name="adamw", lr=0.1, base_batch=256, betas=(0.9, 0.95), weight_decay=0.1)
    told = {item.name: item.scaled for item in plan.would_scale}
    assert told == {"beta2": pytest.approx(0.8145, abs=1e-4), "eps": pytest.approx(5e-9), "weight_decay": 0.2}


def test_rmsprop_and_adafactor_would_follow_with_what_they_have() -> None:
    rmsprop = planned(1024, name="rmsprop", lr=0.1, base_batch=256, eps=1e-6, weight_decay=0.1)
    assert {item.name: item.scaled for item in rmsprop.would_scale} == {
        "alpha": pytest.approx(0.99**4),
        "eps": pytest.approx(5e-7),
    }
    adafactor = planned(1024, name="adafactor", lr=0.1, base_batch=256, weight_decay=0.1)
    assert {item.name: item.scaled for item in adafactor.would_scale} == {"weight_decay": pytest.approx(0.2)}
    for name in ("lamb", "lars", "other"):
        assert planned(1024, name=name, lr=0.1, base_batch=256, scaling="sqrt", target="a:b").would_scale == ()


def test_the_ratio_is_told_even_where_the_lr_does_not_follow_it() -> None:
    plan = planned(1024, name="adamw", lr=0.1, base_batch=256, scaling="none", weight_decay=0.1)
    assert (plan.batch_ratio, plan.factor, plan.peak_lr) == (4.0, 1.0, 0.1)
    assert {item.name: item.scaled for item in plan.would_scale}["weight_decay"] == pytest.approx(0.4)


def test_with_linear_scaling_the_decay_stays() -> None:
    linear = planned(1024, name="adamw", lr=0.1, base_batch=256, scaling="linear", weight_decay=0.1)
    assert {item.name: item.scaled for item in linear.would_scale}["weight_decay"] == pytest.approx(0.1)


def test_sgd_has_nothing_else_to_scale() -> None:
    assert planned(1024, name="sgd", lr=0.1, base_batch=256, weight_decay=0.1).would_scale == ()


@given(st.floats(min_value=0.5, max_value=0.9999), ratios, ratios)
def test_the_half_life_rule_composes_goes_back_and_never_leaves_its_range(
    beta: float, first: float, second: float
) -> None:
    twice = half_life_beta(half_life_beta(beta, first), second)
    assert math.isclose(twice, half_life_beta(beta, first * second), rel_tol=1e-9)
    assert math.isclose(half_life_beta(half_life_beta(beta, first), 1 / first), beta, rel_tol=1e-9)
    assert 0 < half_life_beta(beta, first) < 1


@given(ratios, ratios)
def test_eps_and_weight_decay_compose_and_go_back(first: float, second: float) -> None:
    for scale in (
        scaled_eps,
        lambda value, ratio: scaled_weight_decay(value, ratio, lr_factor=math.sqrt(ratio)),
        lambda value, ratio: scaled_weight_decay(value, ratio, lr_factor=ratio),
    ):
        assert math.isclose(scale(scale(0.1, first), second), scale(0.1, first * second), rel_tol=1e-12)
        assert math.isclose(scale(scale(0.1, first), 1 / first), 0.1, rel_tol=1e-12)


@given(st.floats(min_value=0.9, max_value=0.9999), ratios)
def test_the_half_life_in_samples_stays(beta: float, ratio: float) -> None:
    """n steps of B samples halve an old update, beta ** n = 1/2, and so do n / k steps of k B samples."""
    steps = math.log(0.5) / math.log(beta)
    assert math.isclose(half_life_beta(beta, ratio) ** (steps / ratio), 0.5, rel_tol=1e-9)


@given(sizes, sizes)
def test_scaling_there_and_back_is_as_before(first: int, second: int) -> None:
    for scale in (linear_scaling, sqrt_scaling):
        there = scale(0.1, base_batch_size=first, effective_batch_size=second)
        assert math.isclose(scale(there, base_batch_size=second, effective_batch_size=first), 0.1, rel_tol=1e-12)


@given(sizes, sizes, sizes)
def test_scaling_twice_is_scaling_once(first: int, second: int, third: int) -> None:
    for scale in (linear_scaling, sqrt_scaling):
        between = scale(0.1, base_batch_size=first, effective_batch_size=second)
        twice = scale(between, base_batch_size=second, effective_batch_size=third)
        assert math.isclose(twice, scale(0.1, base_batch_size=first, effective_batch_size=third), rel_tol=1e-12)
