"""The clock is consumed samples: warm-up, horizon and learning rate depend on nothing else."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.schedule import SchedulePlan, lr_at, num_steps, samples_in, total_samples, warmup_samples
from orchestrator.recipe.amounts import Amount, Duration, Warmup

SIZES: dict[str, Any] = {"effective_batch_size": 256, "samples_per_epoch": 1000}


@pytest.mark.parametrize(
    ("amount", "samples"),
    [({"samples": 7}, 7), ({"steps": 3}, 768), ({"epochs": 2.5}, 2500), ({"epochs": 1.1}, 1100)],
)
def test_an_amount_is_so_many_samples(amount: dict[str, Any], samples: int) -> None:
    assert samples_in(Amount(**amount), **SIZES) == samples


def test_an_epoch_count_is_read_as_the_decimal_that_was_written() -> None:
    assert samples_in(Amount(epochs=1.1), effective_batch_size=1, samples_per_epoch=10) == 11


def test_tokens_are_turned_into_samples_by_the_declared_mean_rounded_up() -> None:
    duration = Duration(tokens=100_001)
    found = total_samples(duration, effective_batch_size=8, samples_per_epoch=1000, tokens_per_sample=Fraction(50))
    assert found == 2001


@pytest.mark.parametrize(
    ("batch", "total", "steps", "warmup_steps"), [(256, 3 * 1_281_167, 15014, 2000), (1024, 3 * 1_281_167, 3754, 500)]
)
def test_steps_come_from_samples_and_never_from_the_length_of_a_loader(
    batch: int, total: int, steps: int, warmup_steps: int
) -> None:
    assert num_steps(total, batch) == steps
    assert num_steps(512_000, batch) == warmup_steps


def test_a_warm_up_ratio_is_one_of_the_whole_run() -> None:
    found = warmup_samples(Warmup(ratio=0.05), total=12_345, effective_batch_size=64, samples_per_epoch=100)
    assert found == math.ceil(617.25)


def schedule(name: Literal["constant", "cosine", "inverse_sqrt"], **changes: Any) -> SchedulePlan:
    values: dict[str, Any] = {"final_ratio": 0.0, "warmup_samples": 512, "total_samples": 5120, **changes}
    steps = {"warmup_steps": 0, "num_steps": 0, "samples_per_epoch": None}
    return SchedulePlan(name=name, **values, **steps)


def rate(consumed: int, plan: SchedulePlan, batch: int = 64) -> float:
    return lr_at(consumed, peak_lr=1.0, schedule=plan, effective_batch_size=batch)


def test_warm_up_is_linear_its_first_step_already_learns_and_its_last_reaches_the_peak() -> None:
    plan = schedule("constant")
    assert [rate(64 * step, plan) for step in (0, 3, 7, 8)] == [0.125, 0.5, 1.0, 1.0]


def test_cosine_begins_at_the_peak_halves_midway_and_ends_at_its_final_ratio() -> None:
    plan = schedule("cosine", final_ratio=0.1)
    assert rate(512, plan) == 1.0
    assert math.isclose(rate((512 + 5120) // 2, plan), 0.55)
    assert math.isclose(rate(5120, plan), 0.1)


def test_inverse_sqrt_halves_when_the_clock_quadruples() -> None:
    plan = schedule("inverse_sqrt")
    assert math.isclose(rate(4 * 512, plan), 0.5)


@given(st.integers(min_value=0, max_value=10_000), st.sampled_from(["constant", "cosine", "inverse_sqrt"]))
def test_the_lr_is_never_negative_nor_above_the_peak(consumed: int, name: Any) -> None:
    assert 0 <= rate(consumed, schedule(name)) <= 1
