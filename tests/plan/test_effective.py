"""What a recipe's `batch` section means on so many ranks, or what to write instead."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.errors import Problem
from orchestrator.launch.user_command import user_command
from orchestrator.plan.batch import BatchPlan
from orchestrator.plan.effective import BATCH_CHECKS, effective_batch, effective_samples
from orchestrator.plan.explain import explain
from orchestrator.plan.memory import MemoryPlan, PeakCurve
from orchestrator.plan.plan import make_plan
from orchestrator.recipe.schema import Batch
from orchestrator.units import GIB
from tests.plan.recipes import recipe

FLAT = PeakCurve.through({1: 1}, step_bytes=1)
TOKENS = {"unit": "tokens", "sequence_length": 4096, "micro": 6}


def planned(world_size: int, memory: MemoryPlan | None = None, **batch: Any) -> BatchPlan:
    plan = effective_batch(recipe(batch=batch), world_size=world_size, memory=memory)
    assert isinstance(plan, BatchPlan)
    return plan


def refused(world_size: int, memory: MemoryPlan | None = None, **batch: Any) -> tuple[str, str, str]:
    problem = effective_batch(recipe(batch=batch), world_size=world_size, memory=memory)
    assert isinstance(problem, Problem)
    return problem.where, problem.what, problem.fix


def fits(accumulating: int, single: int) -> MemoryPlan:
    """A prediction by which so many samples fit beside kept gradients, and so many without."""
    return MemoryPlan(
        method="simulated",
        gpu_bytes=80 * GIB,
        budget_bytes=70 * GIB,
        largest_micro_batch=accumulating,
        largest_without_accumulation=single,
        accumulating=FLAT,
        single=FLAT,
    )


def test_case_30_a_batch_in_tokens_is_so_many_samples_of_one_length() -> None:
    plan = planned(16, effective=1_048_576, **TOKENS)
    assert (plan.effective_batch_size, plan.micro_batch_size, plan.gradient_accumulation_steps) == (256, 6, 3)
    assert (plan.unit, plan.effective_in_unit) == ("tokens", 1_048_576)
    assert plan.groups(16) == ((16, ((6, 1), (5, 2))),)


def test_tokens_that_cannot_be_shared_are_refused_in_tokens() -> None:
    assert refused(24, effective=1_048_576, **TOKENS) == (
        "batch.effective",
        "1048576 tokens = 256 samples cannot be shared evenly by 24 ranks",
        "use 983040 or 1081344, a world of 16 or 32, or batch.on_indivisible: uneven (the batch stays exact)",
    )


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        ({"effective": 64}, 64),
        ({"per_gpu": 64}, None),
        ({"effective": 64, "unit": "tokens", "sequence_length": 16}, 4),
        ({"effective": 65, "unit": "tokens", "sequence_length": 16}, None),
        ({"effective": 64, "unit": "tokens"}, None),
    ],
)
def test_the_declared_batch_is_a_number_of_samples_or_none(batch: dict[str, Any], samples: int | None) -> None:
    assert effective_samples(Batch(**batch)) == samples


def test_the_nearest_batch_is_refused_with_its_distance_where_the_tolerance_is_smaller() -> None:
    _, what, _ = refused(24, effective=1024, on_indivisible="nearest", tolerance=0.005)
    end = "; the nearest batch is 0.78% away, more than batch.tolerance 0.50%"
    assert what == f"1024 cannot be shared evenly by 24 ranks{end}"


def test_equal_micro_batches_are_limited_by_the_largest_divisor_that_fits() -> None:
    plan = planned(8, effective=480, micro=16, equal_micro=True)
    assert (plan.largest_micro_batch, plan.gradient_accumulation_steps, plan.kind) == (15, 4, "equal")
    assert planned(8, effective=488, micro=16, equal_micro=True).gradient_accumulation_steps == 61


@given(share=st.integers(1, 500), world_size=st.integers(1, 64), micro=st.none() | st.integers(1, 64))
def test_a_command_is_told_sizes_that_make_its_batch_exactly(share: int, world_size: int, micro: int | None) -> None:
    command = ("train.py", "${plan.micro_batch_size}", "${plan.gradient_accumulation_steps}", "${plan.world_size}")
    wanted = recipe(command=command, datasets=[], batch={"effective": share * world_size, "micro": micro})
    plan = make_plan(wanted, LOCAL, Allocation(1, world_size))
    _, _, *told = user_command(wanted.command, plan, PurePath("run"), python="python3")
    assert math.prod(map(int, told)) == share * world_size
    assert int(told[0]) <= (micro or share)
    (number,) = [number for number in explain(plan, wanted) if number.name == "batch.micro_batch_size"]
    assert number.value == int(told[0])


def test_a_command_that_asks_for_no_size_may_be_uneven() -> None:
    plan = effective_batch(recipe(command=["t.py"], batch={"effective": 10, "on_indivisible": "uneven"}), world_size=3)
    assert isinstance(plan, BatchPlan) and plan.kind == "uneven"


@pytest.mark.parametrize(
    ("changes", "kind", "groups"),
    [
        ({}, "ragged", ((8, ((16, 1), (15, 3))),)),
        ({"batch": {"effective": 37, "micro": 3, "on_indivisible": "uneven"}}, "uneven", None),
        ({"command": ["t.py", "--size=${plan.micro_batch_size}"]}, "equal", ((8, ((1, 61),)),)),
        ({"datasets": []}, "equal", ((8, ((1, 61),)),)),
    ],
    ids=["a session", "uneven ranks", "a session whose command asks for the size", "a plain command"],
)
def test_a_session_has_ragged_micro_batches_unless_its_command_is_told_one_size(
    changes: dict[str, Any], kind: str, groups: Any
) -> None:
    plan = effective_batch(recipe(**{"command": ["t.py"], **changes}), world_size=8)
    assert isinstance(plan, BatchPlan)
    assert plan.kind == kind and groups in (None, plan.groups(8))
    assert sum(ranks * size * steps for ranks, runs in plan.groups(8) for size, steps in runs) == (plan.requested or 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": {"effective": 64, "micro": 4, "equal_micro": True}},
        {"batch": {"effective": 64}, "command": ["t.py", "${plan.gradient_accumulation_steps}"]},
    ],
)
def test_uneven_is_no_advice_where_it_would_be_refused(changes: dict[str, Any]) -> None:
    problem = effective_batch(recipe(**changes), world_size=3)
    assert isinstance(problem, Problem)
    assert problem.fix == "use 63 or 66, or a world of 2 or 4"


def test_a_predicted_limit_hangs_on_whether_gradients_are_kept() -> None:
    memory = fits(accumulating=10, single=14)
    assert planned(8, memory, effective=112, micro="auto").largest_micro_batch == 14
    assert planned(8, memory, effective=120, micro="auto").largest_micro_batch == 10
    assert planned(8, memory, per_gpu=15, micro="auto").gradient_accumulation_steps == 2
    assert planned(8, memory, effective=113, micro="auto", on_indivisible="nearest").largest_micro_batch == 14


def test_without_a_prediction_auto_is_no_limit_yet() -> None:
    assert planned(8, effective=112, micro="auto").largest_micro_batch is None


def test_where_not_one_sample_fits_it_is_said_what_would_help() -> None:
    smaller = "activation_checkpointing: true, shorter samples or GPUs with more memory"
    none = ("batch.micro", "not one sample fits a GPU of 80 GiB (predicted)", f"use {smaller}")
    assert refused(8, fits(0, 0), effective=256, micro="auto") == none
    assert refused(8, fits(0, 0), per_gpu=32, micro="auto") == none
    where, what, fix = refused(8, fits(0, 3), effective=256, micro="auto")
    assert (where, what) == (
        "batch.micro",
        "not one sample fits a GPU of 80 GiB beside kept gradients; without accumulation 3 would (predicted)",
    )
    assert fix == f"use at least 86 ranks, or {smaller}"
    assert planned(128, fits(0, 3), effective=256, micro="auto").gradient_accumulation_steps == 1


def test_where_arithmetic_says_that_nothing_fits_the_cause_is_told() -> None:
    memory = replace(fits(0, 0), method="arithmetic", why="model.py:12: TypeError: no")
    _, what, _ = refused(8, memory, effective=256, micro="auto")
    told = "by arithmetic: it could not be simulated: model.py:12: TypeError: no"
    assert what == f"not one sample fits a GPU of 80 GiB ({told})"


def test_the_ranks_that_a_recipe_asks_for_are_checked_with_all_that_follows_the_batch() -> None:
    other = {"name": "other", "target": "a:b", "lr": 0.1, "base_batch": 8}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"batch": {"effective": 16}}, []),
        ({"batch": {"effective": 16}, "resources": {"num_nodes": 3}}, ["batch.effective"]),
        ({"batch": {"effective": 16}, "optimizer": other}, ["optimizer.scaling"]),
        ({"batch": {"per_gpu": 8}, "optimizer": other}, []),
        ({"batch": {"per_gpu": 8}, "optimizer": other, "resources": {"num_nodes": 3}}, ["optimizer.scaling"]),
        (
            {"batch": {"effective": 16}, "optimizer": other, "resources": {"num_nodes": 3}},
            ["batch.effective", "optimizer.scaling"],
        ),
        ({"batch": {}}, []),
        ({"batch": {"effective": 17, "unit": "tokens", "sequence_length": 4}}, []),
    ]
    for changes, keys in cases:
        assert [problem.where for check in BATCH_CHECKS for problem in check(recipe(**changes))] == keys
