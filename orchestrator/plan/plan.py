"""The plan: what one recipe means on one allocation. A value: pure, printable, and the same bytes each time.

`orchestrate plan` prints it, `submit` stores it, the driver makes it again from the allocation it really got, and
every rank trains by it.
"""

from __future__ import annotations

import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal

from orchestrator.cluster import Allocation, Cluster
from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.batch import BatchPlan, Indivisible, balanced, batch_per_gpu, plan_batch
from orchestrator.plan.learning_rate import LearningRatePlan, plan_learning_rate
from orchestrator.plan.schedule import SchedulePlan, num_steps, total_samples, warmup_samples
from orchestrator.plan.tokens import tokens_per_epoch
from orchestrator.recipe.schema import Recipe
from orchestrator.units import parse_walltime


@dataclass(frozen=True)
class Topology:
    """Where the run would run: one rank per GPU."""

    num_nodes: int
    gpus_per_node: int
    cpus_per_node: int | None
    accelerator: Literal["cuda", "cpu"]
    partition: str | None
    walltime_s: int | None

    @property
    def world_size(self) -> int:
        return self.num_nodes * self.gpus_per_node


@dataclass(frozen=True)
class DataShare:
    """How often one dataset is passed over in the whole run."""

    name: str
    num_samples: int
    passes: float


@dataclass(frozen=True)
class PlanWarning:
    """Something legal that people usually do not mean; `code` is stable."""

    code: str
    message: str


@dataclass(frozen=True)
class Plan:
    """Everything a run derives from its recipe and its allocation."""

    name: str
    topology: Topology
    batch: BatchPlan
    learning_rate: LearningRatePlan
    schedule: SchedulePlan
    data: tuple[DataShare, ...]
    total_tokens: int | None
    warnings: tuple[PlanWarning, ...]

    @property
    def most_gpu_hours(self) -> float | None:
        """GPU-hours if the run takes its whole walltime; None without one."""
        walltime_s = self.topology.walltime_s
        return None if walltime_s is None else walltime_s / 3600 * self.topology.world_size


def make_plan(recipe: Recipe, cluster: Cluster, allocation: Allocation, *, where: str = "batch") -> Plan:
    """The plan of `recipe` on `allocation`. Raises RecipeError, placed at `where`, when no exact plan exists."""
    batch = _batch(recipe, allocation.world_size, where)
    size = batch.effective_batch_size
    epoch = sum(dataset.num_samples for dataset in recipe.datasets) or None
    tokens = tokens_per_epoch(recipe.datasets)
    total = total_samples(recipe.duration, effective_batch_size=size, samples_per_epoch=epoch, tokens_per_epoch=tokens)
    warmup = warmup_samples(recipe.schedule.warmup, total=total, effective_batch_size=size, samples_per_epoch=epoch)
    data = tuple(DataShare(d.name, d.num_samples, total / epoch) for d in recipe.datasets) if epoch else ()
    return Plan(
        name=recipe.name,
        topology=_topology(recipe, cluster, allocation),
        batch=batch,
        learning_rate=plan_learning_rate(
            recipe.optimizer.lr,
            optimizer=recipe.optimizer.name,
            scaling=recipe.optimizer.scaling,
            base_batch_size=recipe.optimizer.base_batch,
            effective_batch_size=size,
        ),
        schedule=SchedulePlan(
            name=recipe.schedule.name,
            final_ratio=recipe.schedule.final_ratio,
            warmup_samples=warmup,
            warmup_steps=num_steps(warmup, size),
            total_samples=total,
            num_steps=num_steps(total, size),
            samples_per_epoch=epoch,
        ),
        data=data,
        total_tokens=-(-total * tokens // epoch) if tokens and epoch else None,
        warnings=_warnings(batch, data),
    )


def requested_allocation(recipe: Recipe, cluster: Cluster, *, accelerator: Literal["cuda", "cpu"]) -> Allocation:
    """The allocation a recipe asks for; CPU cores by `cpus_per_gpu`, else the GPUs' share of the partition's node."""
    resources = recipe.resources
    cpus = _share_of_node(recipe, cluster)
    if resources.cpus_per_gpu is not None:
        cpus = resources.cpus_per_gpu * resources.gpus_per_node
    return Allocation(resources.num_nodes, resources.gpus_per_node, cpus, accelerator=accelerator)


def _share_of_node(recipe: Recipe, cluster: Cluster) -> int | None:
    partition = cluster.partitions.get(partition_of(recipe, cluster) or "")
    if partition is None:
        return None
    gpus = recipe.resources.gpus_per_node
    return max(1, partition.nodes.cpus * gpus // max(partition.nodes.gpus, gpus))


def partition_of(recipe: Recipe, cluster: Cluster) -> str | None:
    """The recipe's partition, else the profile's default one."""
    return recipe.resources.partition or cluster.default_partition


def _topology(recipe: Recipe, cluster: Cluster, allocation: Allocation) -> Topology:
    walltime = recipe.resources.walltime
    return Topology(
        num_nodes=allocation.num_nodes,
        gpus_per_node=allocation.gpus_per_node,
        cpus_per_node=allocation.cpus_per_node,
        accelerator=allocation.accelerator,
        partition=partition_of(recipe, cluster),
        walltime_s=None if walltime is None else parse_walltime(walltime),
    )


def _batch(recipe: Recipe, world_size: int, where: str) -> BatchPlan:
    wanted = recipe.batch
    if wanted.per_gpu is not None:
        return batch_per_gpu(wanted.per_gpu, world_size=world_size, largest_micro_batch=wanted.micro)
    assert wanted.effective is not None, "check_recipe lets exactly one through"
    batch = plan_batch(
        wanted.effective,
        world_size=world_size,
        largest_micro_batch=wanted.micro,
        on_indivisible=wanted.on_indivisible,
        tolerance=wanted.tolerance,
    )
    if isinstance(batch, Indivisible):
        raise RecipeError(_indivisible_problem(batch, where))
    return batch


def _indivisible_problem(refused: Indivisible, where: str) -> Problem:
    size, world = refused.effective_batch_size, refused.world_size
    fix = f"use {_either(refused.batches)}, a world of {_either(refused.worlds)}"
    if size < world:
        return Problem(where, f"{size} samples cannot be shared by {world} ranks", fix)
    uneven = " + ".join(map(str, balanced(size, world))) if world <= 8 else "the batch stays exact"
    fix += f", or batch.on_indivisible: uneven ({uneven})"
    return Problem(where, f"{size} cannot be shared evenly by {world} ranks", fix)


def _either(numbers: tuple[int, ...]) -> str:
    return " or ".join(map(str, numbers))


def _warnings(batch: BatchPlan, data: tuple[DataShare, ...]) -> tuple[PlanWarning, ...]:
    found = []
    if batch.requested not in (None, batch.effective_batch_size):
        text = f"the effective batch is {batch.effective_batch_size}, not {batch.requested}; the lr follows it"
        found.append(PlanWarning("W_BATCH_CHANGED", text))
    if batch.gradient_accumulation_steps > 64:
        found.append(PlanWarning("W_ACCUM_HIGH", f"{batch.gradient_accumulation_steps} accumulation steps per update"))
    return tuple(found)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON data, derived numbers included for readers that have no Python."""
    value = asdict(plan)
    value["topology"]["world_size"] = plan.topology.world_size
    value["most_gpu_hours"] = plan.most_gpu_hours
    return value


def plan_from_json(value: dict[str, Any]) -> Plan:
    """The plan that `plan_to_json` wrote."""
    return typing.cast(Plan, _build(Plan, value))


def _build(kind: Any, value: Any) -> Any:
    """`value` as `kind`, a dataclass, a tuple of dataclasses, or a plain JSON type."""
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _build(hints[f.name], value[f.name]) for f in fields(kind)})  # type: ignore[operator]
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_build(typing.get_args(kind)[0], item) for item in value)
    return value
