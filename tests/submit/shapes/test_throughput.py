"""What earlier runs say of a plan's speed: measured where it was, predicted where it may be, silent elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import Allocation, Cluster
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.run_dir import RunDir
from orchestrator.submit.shapes.throughput import hardware_of, measurements, speed_of
from tests.plan.recipes import recipe
from tests.support.earlier_runs import leave_run

SITE = Cluster.model_validate(
    {
        "name": "site",
        "scheduler": "slurm",
        "accelerator": "cuda",
        "partitions": {
            "gpu": {"nodes": {"num_nodes": 8, "gpus": 8, "gpu_type": "a100", "cpus": 64}, "default": True},
            "long": {"nodes": {"num_nodes": 4, "gpus": 8, "gpu_type": "a100", "cpus": 32}},
            "old": {"nodes": {"num_nodes": 4, "gpus": 8, "gpu_type": "v100", "cpus": 32}},
        },
    }
)
BATCH = {"effective": 1024, "micro": 16}
Run = Callable[..., RunDir]


def plan_on(world_size: int, *, partition: str = "gpu", **changes: Any) -> Plan:
    changed = {"batch": BATCH, "resources": {"partition": partition}} | changes
    allocation = Allocation(1, world_size, accelerator="cuda")
    return make_plan(recipe(**changed), SITE, allocation)


@pytest.fixture
def earlier_run(tmp_path: Path) -> Run:
    """Leaves a run of the recipe, one attempt a speed."""

    def leave(
        run_name: str, world_size: int, *speeds: float, partition: str = "gpu", steps: int = 50, **changes: Any
    ) -> RunDir:
        wanted = recipe(**({"batch": BATCH} | changes))
        plan = plan_on(world_size, partition=partition, **changes)
        return leave_run(tmp_path / "runs" / run_name, wanted, SITE, plan, *speeds, steps=steps)

    return leave


def expected(cwd: Path, plan: Plan, *, partition: str = "gpu") -> tuple[float, bool, list[str]] | None:
    """Samples per second, whether measured, and the runs behind it."""
    found = measurements(recipe(batch=BATCH), cwd=cwd)
    speed = speed_of(plan, hardware_of(SITE, partition, "cuda"), found)
    return speed and (speed.samples_per_s, speed.is_measured, [source.run for source in speed.sources])


def test_without_runs_nothing_is_known(tmp_path: Path) -> None:
    assert expected(tmp_path, plan_on(8)) is None


def test_on_as_many_ranks_the_speed_is_the_measured_one_without_start_up_and_last_evaluation(
    tmp_path: Path, earlier_run: Run
) -> None:
    earlier_run("toy-1", 8, 2000.0)
    speed, is_measured, runs = expected(tmp_path, plan_on(8)) or (0.0, False, [])
    assert speed == pytest.approx(2000.0, rel=1e-4)
    assert (is_measured, runs) == (True, ["toy-1"])


def test_from_one_world_the_speed_of_another_is_linear_in_its_size(tmp_path: Path, earlier_run: Run) -> None:
    earlier_run("toy-1", 8, 2000.0)
    speed, is_measured, _ = expected(tmp_path, plan_on(32)) or (0.0, True, [])
    assert speed == pytest.approx(8000.0, rel=1e-4)
    assert not is_measured


def test_two_measured_worlds_say_how_a_micro_step_grows(tmp_path: Path, earlier_run: Run) -> None:
    earlier_run("toy-1", 4, 1000.0)
    earlier_run("toy-2", 16, 4000.0 / 2**0.5)
    speed, _, runs = expected(tmp_path, plan_on(64)) or (0.0, True, [])
    assert speed == pytest.approx(8000.0, rel=1e-3)
    assert runs == ["toy-2", "toy-1"]


def test_a_world_that_went_faster_per_rank_than_a_smaller_one_promises_no_more_than_linear(
    tmp_path: Path, earlier_run: Run
) -> None:
    earlier_run("toy-1", 4, 1000.0)
    earlier_run("toy-2", 8, 2500.0)
    speed, _, _ = expected(tmp_path, plan_on(16)) or (0.0, True, [])
    assert speed == pytest.approx(5000.0, rel=1e-4)


def test_slots_that_stay_empty_cost_their_time(tmp_path: Path, earlier_run: Run) -> None:
    """1,024 on 3 x 8 ranks, uneven: 43 samples a rank in micro-batches of 15 at most, where 16 were measured."""
    batch = {**BATCH, "micro": 15, "on_indivisible": "uneven"}
    earlier_run("toy-1", 8, 2000.0, batch={"effective": 1024, "micro": 15})
    plan = plan_on(24, batch=batch)
    measured = measurements(recipe(batch={"effective": 1024, "micro": 15}), cwd=tmp_path)
    assert measured[0].micro_batch_size == 15 == plan.batch.micro_batch_size
    speed = speed_of(plan, "a100", measured)
    assert speed is not None
    assert speed.samples_per_s == pytest.approx(1024 / (3 * measured[0].micro_step_s))


def test_the_same_gpu_in_another_partition_counts_and_another_gpu_does_not(tmp_path: Path, earlier_run: Run) -> None:
    earlier_run("toy-1", 8, 2000.0, partition="long")
    assert expected(tmp_path, plan_on(8)) is not None
    assert expected(tmp_path, plan_on(8, partition="old"), partition="old") is None


def test_another_micro_batch_says_nothing(tmp_path: Path, earlier_run: Run) -> None:
    earlier_run("toy-1", 8, 2000.0, batch={"effective": 1024, "micro": 8})
    assert measurements(recipe(batch=BATCH), cwd=tmp_path) != []
    assert expected(tmp_path, plan_on(8)) is None


@pytest.mark.parametrize(
    "changes",
    [{"name": "other"}, {"batch": {"effective": 512, "micro": 16}}, {"precision": "bf16"}, {"loader": {"workers": 0}}],
)
def test_another_recipe_says_nothing(tmp_path: Path, earlier_run: Run, changes: dict[str, Any]) -> None:
    earlier_run("toy-1", 8, 2000.0, **changes)
    assert measurements(recipe(batch=BATCH), cwd=tmp_path) == []


def test_resources_and_the_limit_on_micro_batches_make_no_other_recipe(tmp_path: Path, earlier_run: Run) -> None:
    earlier_run("toy-1", 8, 2000.0, batch={"effective": 1024, "micro": 17}, resources={"num_nodes": 2})
    assert len(measurements(recipe(batch=BATCH), cwd=tmp_path)) == 1


def test_less_than_a_second_of_steps_says_nothing(tmp_path: Path, earlier_run: Run) -> None:
    earlier_run("toy-1", 8, 2000.0, steps=2)
    assert expected(tmp_path, plan_on(8)) is None


def test_each_attempt_is_measured_by_itself_and_the_newest_counts(tmp_path: Path, earlier_run: Run) -> None:
    earlier_run("toy-1", 8, 1000.0, 3000.0)
    assert [round(found.samples_per_s) for found in measurements(recipe(batch=BATCH), cwd=tmp_path)] == [1000, 3000]
    speed, _, _ = expected(tmp_path, plan_on(8)) or (0.0, False, [])
    assert speed == pytest.approx(3000.0, rel=1e-4)


def test_a_run_that_left_no_plan_no_journal_or_an_unreadable_recipe_is_passed_over(
    tmp_path: Path, earlier_run: Run
) -> None:
    run = earlier_run("toy-1", 8, 1000.0, 1000.0, 1000.0)
    run.attempt(0).plan.unlink()
    run.attempt(1).plan.write_text('{"name": "of another version"}')
    (run.journal / "002.node1.rank-0.log").unlink()
    earlier_run("toy-2", 8, 1000.0).recipe.write_text("batch: [")
    assert measurements(recipe(batch=BATCH), cwd=tmp_path) == []
