"""Every derived number of a plan has a formula that gives it, a reason and a source."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.plan.batch import largest_divisor
from orchestrator.plan.explain import PER_RANK, explain, explain_warnings
from orchestrator.plan.memory import MemoryPlan, PeakCurve
from orchestrator.plan.plan import make_plan, plan_to_json
from orchestrator.plan.shares import integer_share, tempered
from orchestrator.plan.warnings import RULES
from orchestrator.recipe.read import read_recipe
from orchestrator.recipe.schema import Recipe
from tests.plan.recipes import recipe

DIGITS = read_recipe(Path(__file__).parents[2] / "recipes" / "digits" / "digits.yaml").recipe
TEXT = [{"name": "text", "target": "data:a", "num_samples": 1000, "chars_per_sample": 90}]
IMAGES = [{"name": "a-b", "target": "d:a", "num_samples": size} for size in (10, 37)]
CORPORA = [
    {"name": "news", "target": "d:a", "num_samples": 55_024, "tokens_per_sample": 9, "weight": 0.7},
    {"name": "talks", "target": "d:a", "num_samples": 4096, "chars_per_sample": 31, "weight": 0.25},
    {"name": "poems", "target": "d:a", "num_samples": 77, "tokens_per_sample": 120, "weight": 0.05},
]
UNWEIGHTED = [{key: value for key, value in corpus.items() if key != "weight"} for corpus in CORPORA]
RECIPES = {
    "digits": DIGITS,
    "handbook": recipe(),
    "nearest": recipe(batch={"effective": 100, "on_indivisible": "nearest"}),
    "per gpu": recipe(batch={"per_gpu": 30, "micro": 7}),
    "uneven": recipe(batch={"effective": 1000, "micro": 9, "on_indivisible": "uneven"}),
    "in tokens": recipe(
        batch={"effective": 65_536, "unit": "tokens", "sequence_length": 512, "micro": 5},
        datasets=IMAGES,
        duration={"tokens": 10**6},
        schedule={"warmup": {"steps": 2}},
    ),
    "aligned": recipe(batch={"effective": 160, "micro": 17, "micro_multiple": 8}),
    "one size": recipe(batch={"effective": 480, "micro": 16, "equal_micro": True}),
    "odd alignment": recipe(batch={"effective": 288, "micro": 20, "micro_multiple": 8}),
    "uneven alignment": recipe(batch={"effective": 193, "micro": 17, "micro_multiple": 8, "on_indivisible": "uneven"}),
    "tenths of epochs": recipe(duration={"epochs": 1.1}, schedule={"warmup": {"epochs": 0.3}}),
    "hundredths": recipe(duration={"samples": 100}, schedule={"warmup": {"ratio": 0.07}}),
    "images": recipe(datasets=IMAGES),
    "no warm-up": recipe(schedule={"name": "constant"}, resources={}),
    "token budget": recipe(datasets=TEXT, duration={"tokens": 1_000_000}, schedule={"warmup": {"ratio": 0.1}}),
    "steps": recipe(duration={"steps": 5000}, schedule={"name": "constant", "warmup": {"steps": 100}}),
    "lars": recipe(optimizer={"name": "lars", "target": "a:b", "lr": 1.0, "base_batch": 61}),
    "by weights": recipe(datasets=CORPORA, mixture={"strategy": "weights"}),
    "by tokens": recipe(datasets=CORPORA, mixture={"strategy": "weights", "unit": "tokens"}, duration={"tokens": 9**9}),
    "tempered": recipe(
        datasets=UNWEIGHTED,
        mixture={"strategy": "temperature", "epoch": {"passes_of": "news"}},
        duration={"epochs": 40},
    ),
    "tempered tokens": recipe(
        datasets=UNWEIGHTED,
        mixture={"strategy": "temperature", "temperature": 1.5, "unit": "tokens", "epoch": {"samples": 70_000}},
        duration={"epochs": 9.5},
    ),
    "in turn": recipe(datasets=UNWEIGHTED, mixture={"strategy": "round_robin"}),
    "session": recipe(
        command=["t.py"], datasets=UNWEIGHTED, mixture={"strategy": "round_robin"}, duration={"epochs": 9}
    ),
    "session of one size": recipe(command=["t.py", "${plan.micro_batch_size}"], batch={"effective": 488, "micro": 16}),
    "dropped": recipe(datasets=UNWEIGHTED, mixture={"strategy": "round_robin", "exhaustion": "drop"}),
    "as written": recipe(optimizer={"name": "sgd", "lr": 1.0}, datasets=[]),
}
AS_GIVEN = re.compile(
    r"name|warnings.*|memory.*|topology\.(?!world_size).*|batch\.(requested|kind|micro_multiple|sequence_length)"
    r"|learning_rate\.(base_lr|base_batch_size|rule|reason|would_scale\.\d+\.(name|value))"
    r"|schedule\.(name|final_ratio)|data\.\d+\.(name|num_samples)"
    r"|mixture\.(strategy|exhaustion|shares\.\d+\.(name|num_samples|iterable))"
)
"""What a plan repeats from the recipe, the profile, the allocation or a prediction, and texts."""

ARITHMETIC = {
    "ceil": math.ceil,
    "floor": math.floor,
    "sqrt": math.sqrt,
    "largest_divisor": largest_divisor,
    "integer_share": integer_share,
    "tempered": tempered,
}
ARITHMETIC |= {"exact": lambda number: Fraction(str(number))}


SOURCE = re.compile(
    r"definition|the recipe: \w|decision 3: |prediction: |rule of thumb: |this project: |"
    r"[A-Z].* 20\d\d \(arXiv:\d{4}\.\d{5}\)"
)


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value of everything in JSON data."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, child in items for k, v in leaves(child, f"{key}.{name}".lstrip(".")).items()}
    return {key: value}


CURVE = PeakCurve.through({1: 1}, step_bytes=1)


@pytest.mark.parametrize("wanted", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize("allocation", [Allocation(1, 1), Allocation(2, 4)], ids=["1", "8"])
def test_every_derived_number_has_a_formula_that_gives_it_and_a_source(wanted: Recipe, allocation: Allocation) -> None:
    plan = make_plan(wanted, LOCAL, allocation)
    told = {explanation.name: explanation for explanation in explain(plan, wanted)}
    for key, value in leaves(json.loads(json.dumps(plan_to_json(plan)))).items():
        is_declared = key == "batch.largest_micro_batch" and value == wanted.batch.micro
        if value not in (None, []) and not AS_GIVEN.fullmatch(key) and not is_declared:
            assert told[key].value == value, key
    for explanation in told.values():
        inputs = {name: Fraction(str(value)) for name, value in explanation.inputs.items()}
        redone = eval(explanation.formula, {**ARITHMETIC, "__builtins__": {"max": max}}, inputs)
        assert math.isclose(redone, explanation.value, rel_tol=1e-12), explanation
        assert explanation.why and SOURCE.match(explanation.source), explanation
        assert set(re.findall(r"[a-z]\w*", explanation.formula)) <= {*inputs, *ARITHMETIC, "max", "at_most"}


def test_the_digits_recipe_is_explained_number_by_number() -> None:
    told = {
        each.name: (each.formula, each.value) for each in explain(make_plan(DIGITS, LOCAL, Allocation(2, 4)), DIGITS)
    }
    assert told == {
        "topology.world_size": ("num_nodes * gpus_per_node", 8),
        "batch.effective_batch_size": ("effective", 64),
        "batch.gradient_accumulation_steps": ("1", 1),
        "batch.micro_batch_size": (f"ceil({PER_RANK} / gradient_accumulation_steps)", 8),
        "learning_rate.batch_ratio": ("effective_batch / base_batch", 1.0),
        "learning_rate.factor": ("sqrt(batch_ratio)", 1.0),
        "learning_rate.peak_lr": ("base_lr * factor", 5e-3),
        "schedule.samples_per_epoch": ("num_samples_0", 1437),
        "schedule.total_samples": ("ceil(exact(epochs) * samples_per_epoch)", 21_555),
        "schedule.num_steps": ("ceil(total_samples / effective_batch_size)", 337),
        "schedule.warmup_samples": ("ceil(exact(epochs) * samples_per_epoch)", 2874),
        "schedule.warmup_steps": ("ceil(warmup_samples / effective_batch_size)", 45),
        "data.0.part": ("num_samples / samples_per_epoch", 1.0),
        "data.0.passes": ("total_samples / samples_per_epoch", 15.0),
        "most_gpu_hours": ("walltime_s / 3600 * world_size", pytest.approx(8 / 6)),
    }


def test_what_would_have_to_follow_the_batch_is_explained_and_not_done() -> None:
    wanted = recipe(optimizer={"name": "adamw", "lr": 5e-4, "base_batch": 61, "weight_decay": 0.1})
    told = [each for each in explain(make_plan(wanted, LOCAL, Allocation(1, 1)), wanted) if "would" in each.name]
    assert [each.formula for each in told] == [
        "beta2 ** batch_ratio",
        "eps / sqrt(batch_ratio)",
        "weight_decay * batch_ratio / factor",
    ]
    assert told[2].value == pytest.approx(0.1 * 8 / math.sqrt(8))
    assert all("not done" in each.why for each in told)


def test_every_warning_is_explained_with_its_source() -> None:
    plan = make_plan(recipe(batch={"effective": 488, "micro": 4, "critical": 100}), LOCAL, Allocation(1, 1))
    told = explain_warnings(plan)
    assert [each.code for each in told] == ["W_BEYOND_CBS", "W_ACCUM_HIGH", "W_ACCUM_SINGLE_DEVICE", "W_REPEAT"]
    assert [(each.code, each.message) for each in told] == [(each.code, each.message) for each in plan.warnings]
    assert all(SOURCE.match(rule.source) for rule in RULES.values())


def test_a_predicted_limit_is_explained_by_what_predicted_it() -> None:
    wanted = recipe(batch={"effective": 480, "micro": "auto"})
    memory = MemoryPlan("simulated", 80, 70, 16, 20, CURVE, CURVE)
    told = {each.name: each for each in explain(make_plan(wanted, LOCAL, Allocation(1, 8), memory=memory), wanted)}
    limit = told["batch.largest_micro_batch"]
    assert (limit.value, limit.source) == (16, "prediction: `orchestrate fit`")


@pytest.mark.parametrize(
    ("changes", "stays"),
    [
        ({}, True),
        ({"batch": {"per_gpu": 30}, "optimizer": {"name": "sgd", "lr": 0.1}}, True),
        ({"batch": {"per_gpu": 30}}, False),
        ({"batch": {"effective": 100, "on_indivisible": "nearest"}}, False),
    ],
)
def test_whether_an_allocation_changes_the_lr_is_told_as_it_is(changes: dict[str, Any], stays: bool) -> None:
    wanted = recipe(**changes)
    plans = [make_plan(wanted, LOCAL, Allocation(1, world_size)) for world_size in (8, 2)]
    why = next(told.why for told in explain(plans[0], wanted) if told.name == "learning_rate.peak_lr")
    assert ("an allocation alone never changes it" in why) is stays
    assert (plans[0].learning_rate.peak_lr == plans[1].learning_rate.peak_lr) is stays
