"""Each warning fires where it should, and is silent just beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.plan.memory import MemoryPlan, PeakCurve
from orchestrator.plan.plan import make_plan
from orchestrator.plan.warnings import RULES
from orchestrator.units import GIB
from tests.plan.recipes import recipe

ONE, TWO, EIGHT = Allocation(1, 1), Allocation(1, 2), Allocation(2, 4)
ADAMW = {"name": "adamw", "lr": 0.1, "base_batch": 256}
SGD = {"name": "sgd", "lr": 0.1, "base_batch": 256}
TEXT = {"name": "text", "target": "data:a", "num_samples": 1000}
LONG = {"duration": {"samples": 5_000_000}, "schedule": {"name": "constant"}}
SHORT = {"duration": {"samples": 50_000}, "schedule": {"name": "constant"}}
NEAREST = {"effective": 1024, "on_indivisible": "nearest"}


CURVE = PeakCurve.through({1: GIB, 2: 2 * GIB}, step_bytes=GIB)
SIMULATED = MemoryPlan("simulated", 80 * GIB, 70 * GIB, 32, 32, CURVE, CURVE)
BY_ARITHMETIC = replace(SIMULATED, method="arithmetic", why="model.py:12: TypeError: no")


def fired(
    allocation: Allocation, *, batch_norm: str | None = None, memory: MemoryPlan | None = None, **changes: Any
) -> dict[str, str]:
    """Code -> message of the warnings of a plan."""
    plan = make_plan(recipe(**{**LONG, **changes}), LOCAL, allocation, memory=memory, batch_norm=batch_norm)
    return {warning.code: warning.message for warning in plan.warnings}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "W_BATCH_CHANGED": (
        {"allocation": Allocation(3, 8), "batch": NEAREST},
        {"allocation": EIGHT, "batch": NEAREST},
    ),
    "W_BIG_K": (
        {"allocation": EIGHT, "batch": {"effective": 1032}, "optimizer": ADAMW},
        {"allocation": EIGHT, "batch": {"effective": 1024}, "optimizer": ADAMW},
    ),
    "W_BETA_INVALID": (
        {"allocation": EIGHT, "batch": {"effective": 2568}, "optimizer": ADAMW},
        {"allocation": EIGHT, "batch": {"effective": 2552}, "optimizer": ADAMW},
    ),
    "W_BEYOND_CBS": (
        {"allocation": EIGHT, "batch": {"effective": 488, "critical": 487}},
        {"allocation": EIGHT, "batch": {"effective": 488, "critical": 488}},
    ),
    "W_FEW_STEPS": (
        {"allocation": EIGHT, "batch": {"effective": 512}, **SHORT},
        {"allocation": EIGHT, "batch": {"effective": 256}, **SHORT},
    ),
    "W_ACCUM_HIGH": (
        {"allocation": TWO, "batch": {"effective": 130, "micro": 1}},
        {"allocation": TWO, "batch": {"effective": 128, "micro": 1}},
    ),
    "W_ACCUM_SINGLE_DEVICE": (
        {"allocation": ONE, "batch": {"effective": 32, "micro": 16}},
        {"allocation": TWO, "batch": {"effective": 64, "micro": 16}},
    ),
    "W_BN": (
        {"allocation": EIGHT, "batch_norm": "model.py:14", "batch": {"effective": 256, "micro": 64}},
        {"allocation": EIGHT, "batch_norm": "model.py:14", "batch": {"effective": 256, "micro": 32}},
    ),
    "W_MEMORY_ARITHMETIC": (
        {"allocation": EIGHT, "batch": {"effective": 256, "micro": "auto"}, "memory": BY_ARITHMETIC},
        {"allocation": EIGHT, "batch": {"effective": 256, "micro": "auto"}, "memory": SIMULATED},
    ),
    "W_REPEAT": (
        {"allocation": ONE, "datasets": [{**TEXT, "tokens_per_sample": 9}], "duration": {"samples": 4001}},
        {"allocation": ONE, "datasets": [{**TEXT, "tokens_per_sample": 9}], "duration": {"samples": 4000}},
    ),
    "W_TOKENS_RULE": (
        {"allocation": ONE, "datasets": [{**TEXT, "chars_per_sample": 9, "language": "zh"}]},
        {"allocation": ONE, "datasets": [{**TEXT, "chars_per_sample": 9, "language": "en-GB"}]},
    ),
}  # fmt: skip
"""Code -> what fires it, and what is just beside that."""


def test_every_code_has_its_case() -> None:
    assert set(CASES) == set(RULES)
    assert all(re.fullmatch("W_[A-Z_]+", code) for code in RULES)


@pytest.mark.parametrize("code", CASES)
def test_a_warning_fires_in_one_line_with_its_numbers(code: str) -> None:
    message = fired(**CASES[code][0])[code]
    assert "\n" not in message
    assert re.search(r"\d", message)


@pytest.mark.parametrize("code", CASES)
def test_a_warning_is_silent_just_beside_its_limit(code: str) -> None:
    assert code not in fired(**CASES[code][1])


@pytest.mark.parametrize(
    ("changes", "fires"),
    [
        ({"optimizer": SGD, "batch": {"effective": 2048}}, False),
        ({"optimizer": SGD, "batch": {"effective": 2056}}, True),
        ({"optimizer": {**ADAMW, "base_batch": 2056}, "batch": {"effective": 512}}, True),
        ({"optimizer": {**ADAMW, "scaling": "none"}, "batch": {"effective": 8192}}, False),
        ({"optimizer": {"name": "adamw", "lr": 0.1}, "batch": {"effective": 8192}}, False),
    ],
)
def test_a_large_scale_factor_is_judged_by_the_rule_and_in_both_directions(
    changes: dict[str, Any], fires: bool
) -> None:
    assert ("W_BIG_K" in fired(EIGHT, **changes)) is fires


def test_batch_norm_without_a_declared_micro_batch_is_judged_by_the_whole_batch() -> None:
    assert "W_BN" not in fired(ONE, batch_norm="model.py:14", batch={"effective": 64})
    assert "of 32 samples, not 64" in fired(TWO, batch_norm="model.py:14", batch={"effective": 64})["W_BN"]
    assert "W_BN" not in fired(TWO, batch={"effective": 64})


def test_a_micro_batch_by_arithmetic_is_told_with_its_cause() -> None:
    message = fired(**CASES["W_MEMORY_ARITHMETIC"][0])["W_MEMORY_ARITHMETIC"]
    assert message.startswith("the largest micro-batch, 32, is first-order arithmetic: the training step could not be ")
    assert "simulated (model.py:12: TypeError: no)" in message


@pytest.mark.parametrize(
    ("language", "error"),
    [
        ("zh-Hans", "36 to 52 % too low for modern Chinese text"),
        ("ja", "48 to 50 % too low"),
        ("ru", "up to 14 % too low"),
        ("de", "within 10 % for English, and unknown for de"),
    ],
)
def test_the_error_of_the_four_characters_rule_is_told_by_language(language: str, error: str) -> None:
    text = {**TEXT, "chars_per_sample": 9, "language": language}
    assert error in fired(ONE, datasets=[text])["W_TOKENS_RULE"]
    assert "W_TOKENS_RULE" not in fired(ONE, datasets=[{**text, "tokens_per_sample": 5}])


def test_few_steps_are_counted_beside_those_at_the_base_batch() -> None:
    assert "98 steps are left of the 196" in fired(EIGHT, batch={"effective": 512}, **SHORT)["W_FEW_STEPS"]
    assert "W_FEW_STEPS" not in fired(EIGHT, batch={"effective": 128}, **SHORT)


def test_a_single_device_is_told_what_a_smaller_batch_would_do_at_which_lr() -> None:
    changes = {"batch": {"effective": 256, "micro": 64}, "optimizer": ADAMW}
    message = fired(ONE, **changes)["W_ACCUM_SINGLE_DEVICE"]
    assert "a batch of 64 samples at lr 0.05 (sqrt) makes 4 updates" in message
    changes["optimizer"] = {"name": "adamw", "lr": 0.1}
    assert "a batch of 64 samples makes 4 updates" in fired(ONE, **changes)["W_ACCUM_SINGLE_DEVICE"]


def test_a_changed_or_critical_batch_in_tokens_is_told_in_tokens() -> None:
    batch = {**NEAREST, "effective": 1024 * 16, "unit": "tokens", "sequence_length": 16, "critical": 16_000}
    messages = fired(Allocation(3, 8), batch=batch, datasets=[TEXT], optimizer={"name": "adamw", "lr": 0.1})
    assert messages["W_BATCH_CHANGED"] == "the effective batch is 16512, not 16384; the lr follows it"
    assert "16,512 tokens is beyond the declared critical batch of 16,000" in messages["W_BEYOND_CBS"]


@pytest.mark.parametrize(
    ("optimizer", "lr", "what"),
    [
        ({"base_batch": 256}, 0.1 * (1032 / 256) ** 0.5, "follows it"),
        ({}, 0.1 * (1032 / 1024) ** 0.5, "follows it"),
        ({"base_batch": 256, "scaling": "none"}, 0.1, "stays as written"),
        ({"scaling": "none"}, 0.1, "stays as written"),
        ({"name": "other", "target": "a:b"}, 0.1, "stays as written"),
    ],
)
def test_the_lr_of_a_changed_batch_is_what_the_warning_says(optimizer: dict[str, Any], lr: float, what: str) -> None:
    changed = recipe(**LONG, batch=NEAREST, optimizer={"name": "adamw", "lr": 0.1, **optimizer})
    plan = make_plan(changed, LOCAL, Allocation(3, 8))
    assert plan.learning_rate.peak_lr == lr
    (message,) = (warning.message for warning in plan.warnings if warning.code == "W_BATCH_CHANGED")
    assert message == f"the effective batch is 1032, not 1024; the lr {what}"


@pytest.mark.parametrize("beta", [0.9, 0.8, 0.6])
def test_the_limit_of_the_square_root_rule_is_exact(beta: float) -> None:
    k = round(1 / (1 - beta) * 10)
    changes = {"optimizer": {**ADAMW, "base_batch": 80, "betas": [beta, 0.999]}, "batch": {"effective": 8 * k}}
    assert "= 1 is not below 1" in fired(EIGHT, **changes)["W_BETA_INVALID"]


def test_batch_norm_sees_the_same_on_any_allocation_of_a_batch_per_gpu() -> None:
    assert "W_BN" not in fired(EIGHT, batch_norm="model.py:14", batch={"per_gpu": 32})
    assert "of 16 samples, not 24" in fired(EIGHT, batch_norm="model.py:14", batch={"per_gpu": 32, "micro": 24})["W_BN"]


def test_a_warm_up_of_more_than_a_fifth_of_the_run_is_told_by_its_share() -> None:
    schedule = {"name": "constant", "warmup": {"samples": 1_500_000}}
    assert "takes 30% of the run" in fired(EIGHT, schedule=schedule)["W_FEW_STEPS"]


def test_a_set_of_images_may_be_passed_as_often_as_people_do() -> None:
    images = [{"name": "a", "target": "data:a", "num_samples": 10}]
    assert "W_REPEAT" not in fired(ONE, datasets=images, duration={"epochs": 90})


def test_an_exact_batch_at_its_base_warns_of_nothing() -> None:
    assert fired(EIGHT, batch={"effective": 256, "micro": 16}, datasets=[TEXT]) == {}
