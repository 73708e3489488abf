"""Which larger micro-batch is advised, by one measured peak. The figures are made up."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.documents import dump_yaml
from orchestrator.plan.learnt import LearntLimit
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.recipe.schema import Recipe
from orchestrator.tuning.micro_room import room_text, roomier
from tests.worker.recipes import POINTS

GIB = 1 << 30
GPU, HELD = 80 * GIB, 4 * GIB
"""Of 80 GiB tensors may take 61.6: a fifth is the margin of arithmetic, 2.4 GiB are its allowances."""


def planned(world_size: int = 1, learnt: LearntLimit | None = None, **batch: Any) -> tuple[Recipe, Plan]:
    recipe = recipe_from_stored(dump_yaml({**POINTS, "precision": "bf16", "batch": batch}), "recipe.yaml")
    return recipe, make_plan(recipe, LOCAL, Allocation(num_nodes=1, gpus_per_node=world_size), learnt=learnt)


def advised(peak_gib: float, world_size: int = 1, learnt: LearntLimit | None = None, **batch: Any) -> Any:
    """(micro-batch, micro-steps), or None."""
    recipe, plan = planned(world_size, learnt, **batch)
    found = roomier(recipe, plan, peak_bytes=int(peak_gib * GIB), held_bytes=HELD, gpu_bytes=GPU)
    return found and (found.micro_batch_size, found.gradient_accumulation_steps)


@pytest.mark.parametrize(
    ("peak_gib", "batch", "expected"),
    [
        pytest.param(20, {"effective": 64, "micro": 4}, (13, 5), id="4 GiB a sample: 14 fit, and 13 make as few"),
        pytest.param(8, {"effective": 64, "micro": 4}, (32, 2), id="1 GiB a sample: 57 fit, and make two"),
        pytest.param(4.5, {"effective": 64, "micro": 4}, (64, 1), id="all at once"),
        pytest.param(20, {"effective": 64, "micro": 4, "equal_micro": True}, (8, 8), id="of one size"),
        pytest.param(16, {"effective": 50, "micro": 4}, (17, 3), id="of about one size"),
        pytest.param(16, {"effective": 50, "micro": 4, "micro_multiple": 8}, (18, 3), id="16, 16, 18: eights pad less"),
        pytest.param(20, {"effective": 8, "micro": 4}, (8, 1), id="no more than there are"),
        pytest.param(34, {"effective": 8, "micro": 4}, None, id="7 fit, and 8 are two micro-steps all the same"),
        pytest.param(60, {"effective": 64, "micro": 4}, None, id="it is full"),
        pytest.param(75, {"effective": 64, "micro": 4}, None, id="it is fuller than any plan would have it"),
        pytest.param(20, {"effective": 64}, None, id="one micro-step as it is"),
        pytest.param(4, {"effective": 64, "micro": 4}, None, id="a peak that shows nothing"),
        pytest.param(0, {"effective": 64, "micro": 4}, None, id="no peak"),
    ],
)
def test_it_is_what_fits_where_all_but_what_is_held_grows_with_it(
    peak_gib: float, batch: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    assert advised(peak_gib, **batch) == expected


def test_it_is_the_share_of_each_of_several_ranks() -> None:
    assert advised(8, world_size=4, effective=64, micro=4) == (16, 1)
    assert advised(20, world_size=3, effective=64, micro=4, on_indivisible="uneven") == (11, 2)


def test_what_has_run_out_of_memory_here_before_is_not_advised() -> None:
    assert advised(20, learnt=LearntLimit(failed=12, worked=8, device="cuda"), effective=64, micro=4) == (8, 8)
    assert advised(20, learnt=LearntLimit(failed=8, worked=4, device="cuda"), effective=64, micro=16) is None


def test_it_is_one_line_with_what_to_write() -> None:
    recipe, plan = planned(effective=64, micro=4)
    other = roomier(recipe, plan, peak_bytes=8 * GIB, held_bytes=HELD, gpu_bytes=GPU)
    assert other is not None
    assert room_text(plan.batch, other, "bf16", peak_bytes=8 * GIB, gpu_bytes=GPU) == (
        "batch.micro: 32 would fit, and make 2 micro-steps of the same batch, 14 fewer than now: in bf16, "
        "micro-batches of 4 have taken 8.00 of 80.00 GiB at most; resume may change it"
    )
