"""A plan is a value: the same for the same recipe and allocation, exact in its batch, and whole in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Allocation, Cluster, NodeType, Partition
from orchestrator.errors import RecipeError
from orchestrator.plan.plan import make_plan, plan_from_json, plan_to_json, requested_allocation
from orchestrator.recipe.schema import Schedule
from tests.plan.recipes import recipe


def test_the_plan_of_the_handbook_comes_out_as_printed_there() -> None:
    plan = make_plan(recipe(), LOCAL, Allocation(num_nodes=2, gpus_per_node=4))
    assert plan.topology.world_size == 8
    assert (plan.batch.micro_batch_size, plan.batch.gradient_accumulation_steps) == (16, 4)
    assert f"{plan.learning_rate.peak_lr:.2e}" == "6.90e-04"
    assert (plan.schedule.num_steps, plan.schedule.warmup_steps) == (1331, 105)
    assert plan.total_tokens == 649_528 * 20
    assert plan.most_gpu_hours == 4.0


def test_the_same_arguments_give_the_same_plan_and_it_survives_json() -> None:
    first, second = (make_plan(recipe(), LOCAL, Allocation(1, 2)) for _ in range(2))
    assert first == second
    assert plan_from_json(json.loads(json.dumps(plan_to_json(first)))) == first


@pytest.mark.parametrize("allocation", [Allocation(1, 1), Allocation(1, 4), Allocation(2, 2), Allocation(4, 2)])
def test_another_allocation_changes_neither_batch_nor_lr_nor_horizon(allocation: Allocation) -> None:
    one, other = make_plan(recipe(), LOCAL, Allocation(2, 4)), make_plan(recipe(), LOCAL, allocation)
    assert other.batch.effective_batch_size == one.batch.effective_batch_size
    assert (other.learning_rate, other.schedule, other.data) == (one.learning_rate, one.schedule, one.data)


def test_a_batch_that_cannot_be_shared_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe(batch={"effective": 64}), LOCAL, Allocation(3, 1))
    assert str(caught.value) == (
        "batch.effective: 64 cannot be shared evenly by 3 ranks\n"
        "    use 63 or 66, a world of 2 or 4, or batch.on_indivisible: uneven (22 + 21 + 21)"
    )


def test_fewer_samples_than_ranks_are_refused_without_offering_uneven_ranks() -> None:
    with pytest.raises(RecipeError, match=r"4 cannot be shared by 8 ranks\n    use 8, or a world of 4$"):
        make_plan(recipe(batch={"effective": 4}), LOCAL, Allocation(2, 4))


def test_the_nearest_batch_is_said_aloud_and_the_lr_follows_it() -> None:
    batch = {"effective": 1024, "on_indivisible": "nearest", "micro": 16}
    plan = make_plan(recipe(batch=batch), LOCAL, Allocation(3, 8))
    assert plan.warnings[0].code == "W_BATCH_CHANGED"
    assert plan.learning_rate.factor == pytest.approx((1032 / 256) ** 0.5)


def test_with_per_gpu_the_batch_grows_with_the_world_and_the_lr_with_the_batch() -> None:
    small, large = (make_plan(recipe(batch={"per_gpu": 32}), LOCAL, Allocation(1, gpus)) for gpus in (1, 4))
    assert (small.batch.effective_batch_size, large.batch.effective_batch_size) == (32, 128)
    assert large.learning_rate.peak_lr == pytest.approx(2 * small.learning_rate.peak_lr)


def test_a_command_counts_tokens_by_the_length_of_its_samples() -> None:
    batch = {"effective": 8192, "unit": "tokens", "sequence_length": 512, "micro": 3}
    optimizer = {"name": "adamw", "lr": 1e-3, "base_batch": 2048}
    wanted = recipe(datasets=[], command=["train.py"], batch=batch, optimizer=optimizer, duration={"tokens": 10**6})
    plan = make_plan(wanted.model_copy(update={"schedule": Schedule()}), LOCAL, Allocation(1, 4))
    assert (plan.batch.effective_batch_size, plan.batch.effective_in_unit) == (16, 8192)
    assert (plan.schedule.total_samples, plan.schedule.num_steps) == (1954, 123)
    assert (plan.total_tokens, plan.data) == (1954 * 512, ())
    assert (plan.learning_rate.batch_ratio, plan.learning_rate.factor) == (4.0, 2.0)


def test_a_session_is_planned_as_a_model_is_with_epochs_mixture_and_ragged_micro_batches() -> None:
    datasets = [
        {"name": "large", "target": "d:a", "num_samples": 3000, "tokens_per_sample": 20, "weight": 3},
        {"name": "small", "target": "d:a", "num_samples": 500, "tokens_per_sample": 30, "weight": 1},
    ]
    sections = {"datasets": datasets, "mixture": {"strategy": "weights"}, "duration": {"epochs": 2}}
    model = recipe(**sections, schedule={"warmup": {"epochs": 0.1}})
    session = model.model_copy(update={"command": ("train.py",)})
    plan = make_plan(session, LOCAL, Allocation(2, 4))
    assert plan == make_plan(model, LOCAL, Allocation(2, 4))
    assert plan.batch.kind == "ragged" and plan.mixture is not None
    assert (plan.schedule.samples_per_epoch, plan.schedule.total_samples) == (4000, 8000)
    assert [(share.name, share.passes) for share in plan.data] == [("large", 2.0), ("small", 4.0)]
    assert plan.total_tokens == 8000 * 20 * 3 // 4 + 8000 * 30 // 4
    assert [warning.code for warning in plan.warnings] == ["W_FEW_STEPS"]


def test_a_plan_that_an_older_version_wrote_is_read_with_the_defaults_of_what_it_lacks() -> None:
    plan = make_plan(recipe(batch={"effective": 256}), LOCAL, Allocation(1, 2))
    written = plan_to_json(plan)
    for section, names in {
        "batch": ("micro_multiple", "sequence_length"),
        "learning_rate": ("batch_ratio", "would_scale"),
    }.items():
        for name in names:
            del written[section][name]
    del written["memory"]
    assert plan_from_json(json.loads(json.dumps(written))) == plan


SITE = Cluster(
    name="site",
    scheduler="slurm",
    partitions={"gpu": Partition(nodes=NodeType(num_nodes=4, gpus=4, cpus=64), default=True)},
)


@pytest.mark.parametrize(
    ("resources", "cpus"),
    [({"gpus_per_node": 2}, 32), ({"gpus_per_node": 2, "cpus_per_gpu": 3}, 6), ({"gpus_per_node": 4}, 64)],
)
def test_a_job_asks_for_its_gpus_share_of_the_cores_unless_told(resources: dict[str, Any], cpus: int) -> None:
    allocation = requested_allocation(recipe(resources=resources), SITE, accelerator="cuda")
    assert allocation.cpus_per_node == cpus


def test_without_partitions_nothing_is_known_of_the_cores() -> None:
    assert requested_allocation(recipe(), LOCAL, accelerator="cpu").cpus_per_node is None


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": {"per_gpu": 64}, "duration": {"epochs": 2}, "schedule": {"warmup": {"steps": 94}}},
        {"duration": {"tokens": 1000}, "schedule": {"warmup": {"samples": 51}}},
    ],
)
def test_a_warm_up_that_only_the_plan_can_count_ends_before_the_run_too(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"schedule\.warmup: the warm-up of .* samples is longer than the duration"):
        make_plan(recipe(**changes), LOCAL, Allocation(1, 1))
