"""The learning rate follows the batch by the optimizer's rule, and only when the recipe names a reference batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.learning_rate import linear_scaling, plan_learning_rate, sqrt_scaling

sizes = st.integers(min_value=1, max_value=10**6)


@pytest.mark.parametrize(
    ("optimizer", "scaling", "rule", "peak_lr"),
    [
        ("sgd", "auto", "linear", 0.4),
        ("adam", "auto", "sqrt", 0.2),
        ("adamw", "auto", "sqrt", 0.2),
        ("adamw", "linear", "linear", 0.4),
        ("sgd", "sqrt", "sqrt", 0.2),
        ("sgd", "none", "none", 0.1),
    ],
)
def test_four_times_the_batch_scales_the_lr_by_the_rule(
    optimizer: str, scaling: Any, rule: str, peak_lr: float
) -> None:
    plan = plan_learning_rate(0.1, optimizer=optimizer, scaling=scaling, base_batch_size=64, effective_batch_size=256)
    assert plan.rule == rule
    assert math.isclose(plan.peak_lr, peak_lr)


def test_without_a_reference_batch_the_lr_is_taken_as_written() -> None:
    plan = plan_learning_rate(0.1, optimizer="sgd", scaling="auto", base_batch_size=None, effective_batch_size=4096)
    assert (plan.peak_lr, plan.factor) == (0.1, 1.0)


def test_the_reference_batch_itself_changes_nothing_to_the_last_bit() -> None:
    plan = plan_learning_rate(0.1, optimizer="adamw", scaling="auto", base_batch_size=96, effective_batch_size=96)
    assert plan.peak_lr == 0.1


@given(sizes, sizes, sizes)
def test_scaling_twice_is_scaling_once(first: int, second: int, third: int) -> None:
    for scale in (linear_scaling, sqrt_scaling):
        between = scale(0.1, base_batch_size=first, effective_batch_size=second)
        twice = scale(between, base_batch_size=second, effective_batch_size=third)
        assert math.isclose(twice, scale(0.1, base_batch_size=first, effective_batch_size=third), rel_tol=1e-12)
