"""The limit that running out of memory has taught, and the plans that keep to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.render.plan import plan_screen
from orchestrator.cluster import LOCAL, Allocation, Cluster, NodeType, Partition
from orchestrator.plan.explain import explain
from orchestrator.plan.learnt import LearntLimit, after_failure, after_success, device_of, limit_from_json
from orchestrator.plan.memory import MemoryPlan, PeakCurve
from orchestrator.plan.plan import Plan, decisive_limit, make_plan, plan_from_json, plan_to_json
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from tests.plan.recipes import recipe

EIGHT_FAILED = LearntLimit(failed=8, worked=None, device="cuda")
FOUR_WORKED = LearntLimit(failed=8, worked=4, device="cuda")
NODES = NodeType(num_nodes=2, gpus=4, cpus=32, gpu_type="a100", gpu_memory="80G", memory="256G")
SITE = Cluster(name="site", scheduler="slurm", partitions={"gpu": Partition(nodes=NODES, default=True)})


def planned(limit: LearntLimit, wanted: Recipe, memory: MemoryPlan | None = None) -> Plan:
    """On 8 ranks."""
    return make_plan(wanted, LOCAL, Allocation(2, 4), memory=memory, learnt=limit)


def test_half_of_what_failed_is_tried_or_what_is_known_to_work() -> None:
    assert [LearntLimit(failed, None, "cpu").largest_micro_batch for failed in (1, 2, 3, 8, 9)] == [1, 1, 2, 4, 5]
    assert LearntLimit(9, 7, "cpu").largest_micro_batch == 7


def test_every_failure_shrinks_it_and_an_end_confirms_or_refutes_it() -> None:
    assert after_failure(None, 8, device="cuda") == EIGHT_FAILED
    assert after_success(EIGHT_FAILED, 4) == FOUR_WORKED
    assert after_failure(FOUR_WORKED, 6, device="cuda") == LearntLimit(6, 4, "cuda")
    assert after_failure(FOUR_WORKED, 3, device="cuda") == LearntLimit(3, None, "cuda")
    assert after_failure(FOUR_WORKED, 16, device="cpu") == LearntLimit(16, None, "cpu")
    assert after_success(FOUR_WORKED, 2) == FOUR_WORKED
    assert after_success(FOUR_WORKED, 8) is None


def test_a_limit_reads_back_and_anything_else_is_none() -> None:
    assert limit_from_json(json.loads(json.dumps(FOUR_WORKED.as_json()))) == FOUR_WORKED
    for damaged in (None, [], {}, {"failed": 8}, {"failed": 0, "worked": None, "device": "cpu"}):
        assert limit_from_json(damaged) is None


def test_a_plan_keeps_to_the_lowest_limit_and_the_batch_stays_exact() -> None:
    """Each of 8 ranks takes 61 of 488 samples."""
    for micro, largest, steps in ((None, 4, 16), (16, 4, 16), (3, 3, 21)):
        plan = planned(FOUR_WORKED, recipe(batch={"effective": 488, "micro": micro}))
        assert (plan.batch.largest_micro_batch, plan.batch.gradient_accumulation_steps) == (largest, steps)
        assert plan.batch.effective_batch_size == 488
    one_size = planned(LearntLimit(8, None, "cuda"), recipe(batch={"effective": 480, "micro": 16, "equal_micro": True}))
    assert (one_size.batch.kind, one_size.batch.micro_batch_size) == ("equal", 4)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(one_size)))) == one_size


@pytest.mark.parametrize(
    ("limit", "batch", "formula", "told"),
    [
        (EIGHT_FAILED, {}, "ceil(failed / 2)", "micro-batch at most 4 (learnt: ran out of memory at 8)"),
        (FOUR_WORKED, {"micro": 16}, "worked", "micro-batch at most 4 (learnt: ran out of memory at 8)"),
        (FOUR_WORKED, {"micro": "auto"}, "worked", "largest micro-batch that fits: 4 (learnt: ran out of memory at 8)"),
        (
            FOUR_WORKED,
            {"micro": 16, "equal_micro": True},
            "largest_divisor(ceil(effective_batch_size / world_size), at_most=limit)",
            "micro-batches of one size, 4 (learnt: ran out of memory at 8)",
        ),
    ],
)
def test_the_screen_and_the_explanation_say_where_the_limit_comes_from(
    tmp_path: Path, limit: LearntLimit, batch: dict[str, object], formula: str, told: str
) -> None:
    curve = PeakCurve.through({1: 1}, step_bytes=1)
    memory = MemoryPlan("simulated", 80, 70, 16, 20, curve, curve) if batch.get("micro") == "auto" else None
    wanted = recipe(batch={"effective": 480, **batch})
    plan = planned(limit, wanted, memory)
    assert told in plan_screen(plan, wanted, RunDir(tmp_path / "runs" / "a"), cwd=tmp_path)
    (row,) = [row for row in explain(plan, wanted) if row.name == "batch.largest_micro_batch"]
    assert (row.value, row.formula) == (4, formula)
    assert "a micro-batch of 8 ran out of memory (cuda)" in row.why


def test_a_limit_that_is_not_the_lowest_is_kept_and_not_told(tmp_path: Path) -> None:
    wanted = recipe(batch={"effective": 480, "micro": 3})
    plan = planned(FOUR_WORKED, wanted)
    assert plan.learnt == FOUR_WORKED and decisive_limit(plan, wanted) is None
    assert "learnt" not in plan_screen(plan, wanted, RunDir(tmp_path / "runs" / "a"), cwd=tmp_path)


def test_a_device_is_named_by_what_its_memory_hangs_on() -> None:
    wanted = recipe(resources={"gpus_per_node": 2})
    assert device_of(wanted, SITE, "cuda") == "cuda, a100, 80G"
    assert device_of(wanted, LOCAL, "cuda") == "cuda"
    assert device_of(wanted, SITE, "cpu") == "cpu, 256G for 2 ranks"
    assert device_of(wanted, LOCAL, "cpu") == "cpu"
