"""The plan: what one recipe means on one allocation. A value: pure, printable, and the same bytes each time.

`orchestrate plan` prints it, `submit` stores it, the driver makes it again from the allocation it really got, and
every rank trains by it.
"""

from __future__ import annotations

import math
import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar

from orchestrator.cluster import Allocation, Cluster
from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.batch import BatchPlan
from orchestrator.plan.effective import effective_batch, limit_before_learnt
from orchestrator.plan.learning_rate import LearningRatePlan, plan_learning_rate
from orchestrator.plan.learnt import LearntLimit
from orchestrator.plan.memory import MemoryPlan
from orchestrator.plan.resources import cpus_per_node, partition_name
from orchestrator.plan.schedule import SchedulePlan, num_steps, total_samples, warmup_samples
from orchestrator.plan.shares import MixturePlan, exhausted, plan_mixture
from orchestrator.plan.tokens import tokens_per_sample
from orchestrator.plan.warnings import Judged, PlanWarning, warnings_of
from orchestrator.recipe.check import warmup_too_long
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
    """How often one dataset is passed over in the whole run, and the part of all samples that are its own."""

    name: str
    num_samples: int
    passes: float
    part: float = 1.0


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
    memory: MemoryPlan | None = None
    """The prediction behind the micro-batch, where there is one."""
    learnt: LearntLimit | None = None
    """What earlier attempts have taught about memory here, whether or not it is the lowest limit."""
    mixture: MixturePlan | None = None
    """The shares of the datasets, where they are not concatenated. Ranks draw by them."""

    @property
    def most_gpu_hours(self) -> float | None:
        """GPU-hours if the run takes its whole walltime; None without one."""
        walltime_s = self.topology.walltime_s
        return None if walltime_s is None else walltime_s / 3600 * self.topology.world_size


def make_plan(
    recipe: Recipe,
    cluster: Cluster,
    allocation: Allocation,
    *,
    memory: MemoryPlan | None = None,
    learnt: LearntLimit | None = None,
    batch_norm: str | None = None,
) -> Plan:
    """The plan of `recipe` on `allocation`. Raises RecipeError, at a dotted key, when no exact plan exists.

    `memory` says which micro-batch fits where the recipe says `batch.micro: auto`; `learnt` what has been seen to fail;
    `batch_norm` is the place of a BatchNorm in the model's code.
    """
    batch = _told(effective_batch(recipe, world_size=allocation.world_size, memory=memory, learnt=learnt))
    size, requested = batch.effective_in_unit, batch.requested_in_unit
    learning_rate = _told(plan_learning_rate(recipe.optimizer, effective_batch_size=size, requested=requested))
    mixture = plan_mixture(recipe.datasets, recipe.mixture)
    tokens = tokens_per_sample(
        recipe.datasets, sequence_length=batch.sequence_length, samples_of_each=mixture.samples_of_each
    )
    schedule = _schedule(recipe, batch.effective_batch_size, tokens, mixture)
    data = _data(mixture, schedule)
    passes = {share.name: share.passes for share in data}
    judged = Judged(recipe, batch, learning_rate, schedule, passes, allocation.world_size, batch_norm, memory)
    return Plan(
        name=recipe.name,
        topology=_topology(recipe, cluster, allocation),
        batch=batch,
        learning_rate=learning_rate,
        schedule=schedule,
        data=data,
        total_tokens=None if tokens is None else math.ceil(schedule.total_samples * tokens),
        memory=memory,
        learnt=learnt,
        mixture=None if mixture.strategy == "concatenate" else mixture,
        warnings=warnings_of(judged),
    )


def decisive_limit(plan: Plan, recipe: Recipe) -> LearntLimit | None:
    """What was learnt about memory, where that is the lowest limit on this plan's micro-batches."""
    before = limit_before_learnt(recipe, plan.batch, world_size=plan.topology.world_size, memory=plan.memory)
    return plan.learnt if plan.learnt is not None and plan.learnt.lowers(before) else None


PartT = TypeVar("PartT", BatchPlan, LearningRatePlan)


def _told(part: PartT | Problem) -> PartT:
    if isinstance(part, Problem):
        raise RecipeError(part)
    return part


def _schedule(recipe: Recipe, size: int, tokens: Fraction | None, mixture: MixturePlan) -> SchedulePlan:
    epoch = mixture.samples_per_epoch(recipe.mixture) if mixture.shares else None
    total = total_samples(recipe.duration, effective_batch_size=size, samples_per_epoch=epoch, tokens_per_sample=tokens)
    warmup = warmup_samples(recipe.schedule.warmup, total=total, effective_batch_size=size, samples_per_epoch=epoch)
    too_long = [warmup_too_long(warmup, total, "samples")] if warmup > total else []
    if problems := (*too_long, *exhausted(mixture, total)):
        raise RecipeError(problems)
    return SchedulePlan(
        name=recipe.schedule.name,
        final_ratio=recipe.schedule.final_ratio,
        warmup_samples=warmup,
        warmup_steps=num_steps(warmup, size),
        total_samples=total,
        num_steps=num_steps(total, size),
        samples_per_epoch=epoch,
    )


def _data(mixture: MixturePlan, schedule: SchedulePlan) -> tuple[DataShare, ...]:
    return tuple(
        DataShare(
            share.name, share.num_samples, mixture.passes(share, schedule.total_samples), part=mixture.part(share)
        )
        for share in mixture.shares
    )


def requested_allocation(recipe: Recipe, cluster: Cluster, *, accelerator: Literal["cuda", "cpu"]) -> Allocation:
    """The allocation a recipe asks for; CPU cores by `cpus_per_gpu`, else the GPUs' share of the partition's node."""
    resources = recipe.resources
    cpus = cpus_per_node(resources, cluster)
    return Allocation(resources.num_nodes, resources.gpus_per_node, cpus, accelerator=accelerator)


def partition_of(recipe: Recipe, cluster: Cluster) -> str | None:
    """The recipe's partition, else the profile's default one."""
    return partition_name(recipe.resources, cluster)


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
    """`value` as `kind`: a dataclass, one or None, a tuple of them, or a plain JSON type.

    A field that an older version did not write takes its default.
    """
    if typing.get_origin(kind) is types.UnionType and value is not None:
        kind = next(arg for arg in typing.get_args(kind) if arg is not types.NoneType)
    if is_dataclass(kind) and value is not None:
        hints = typing.get_type_hints(kind)
        known = {f.name: _build(hints[f.name], value[f.name]) for f in fields(kind) if f.name in value}
        return kind(**known)  # type: ignore[operator]
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_build(typing.get_args(kind)[0], item) for item in value)
    return value
