"""What the driver says when the allocation is not the one that was planned for."""

from __future__ import annotations

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.job.differences import differences
from orchestrator.plan.plan import Plan, make_plan
from tests.job.runs import recipe_of


def plan_on(gpus_per_node: int, cpus_per_node: int | None = None) -> Plan:
    return make_plan(recipe_of({}), LOCAL, Allocation(1, gpus_per_node, cpus_per_node))


def test_an_equal_allocation_has_no_differences() -> None:
    assert differences(plan_on(2), plan_on(2)) == ()


def test_fewer_gpus_change_the_share_of_each_and_not_the_batch() -> None:
    changed = ("gpus_per_node 4 -> 2", "world_size 4 -> 2", "micro_batch_size 2 -> 4")
    assert differences(plan_on(4), plan_on(2)) == changed


def test_what_the_submitted_plan_left_open_is_no_difference() -> None:
    assert differences(plan_on(2), plan_on(2, cpus_per_node=8)) == ()
    assert differences(plan_on(2, cpus_per_node=16), plan_on(2, cpus_per_node=8)) == ("cpus_per_node 16 -> 8",)
