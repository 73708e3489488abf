"""The recipe really planned on each shape, and which of them comes first. Pure.

The effective batch is exact on every shape that is free to be chosen, so that the choice is one of waiting and of cost
alone; a shape on which the run would not be the same one is kept, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from orchestrator.cluster import Cluster
from orchestrator.errors import RecipeError
from orchestrator.plan.batch import BatchPlan, nearest_worlds
from orchestrator.plan.memory import MemoryPlan
from orchestrator.plan.plan import Plan, make_plan, partition_of, requested_allocation
from orchestrator.plan.resources import check_resources
from orchestrator.plan.shapes import Shape, candidate_shapes, distance, own_shape, samples_per_step, shaped
from orchestrator.recipe.schema import Recipe
from orchestrator.units import format_count, parse_bytes

SAME_START_S = 60.0
"""Starts no further apart are one: an estimate is not better than that."""


@dataclass(frozen=True)
class ShapeOption:
    """A shape with the recipe's plan on it; what is known of its start and of its speed."""

    shape: Shape
    is_own: bool
    """It is what the recipe itself asks for."""
    plan: Plan | None
    why_not: str = ""
    """Why the run cannot be had on it, or would not be the same one; '' where the choice is free."""
    wait_s: float | None = None
    """Seconds until Slurm would start it; None where nobody knows."""
    samples_per_s: float | None = None
    is_measured: bool = False
    """The speed was measured on as many ranks; else it is predicted from other worlds."""

    @property
    def is_exact(self) -> bool:
        """Whether the run on it is the very one that the recipe asks for."""
        return self.plan is not None and not self.why_not

    @property
    def duration_s(self) -> float | None:
        """Training time of the whole run at its speed, without start-up and waiting."""
        if self.plan is None or self.samples_per_s is None:
            return None
        return self.plan.schedule.total_samples / self.samples_per_s

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours of the whole run at its speed."""
        return None if self.duration_s is None else self.duration_s / 3600 * self.shape.world_size

    @property
    def num_jobs(self) -> int | None:
        """Jobs of the recipe's walltime that the whole run takes at its speed."""
        walltime_s = None if self.plan is None else self.plan.topology.walltime_s
        if self.duration_s is None:
            return None
        return 1 if walltime_s is None else max(1, math.ceil(self.duration_s / walltime_s))

    @property
    def first_end_s(self) -> float | None:
        """Seconds until it can have ended at the earliest: the wait and the duration; None where either is unknown."""
        return None if self.wait_s is None or self.duration_s is None else self.wait_s + self.duration_s

    @property
    def end_s(self) -> float | None:
        """Seconds until its end; None where that is unknown, or where one job is not enough."""
        return self.first_end_s if self.num_jobs == 1 else None


def idle_share(batch: BatchPlan, world_size: int) -> float:
    """The share of a step's sample slots that stay empty: 1 - B / (W * a * m), with m the largest micro-batch.

    All W ranks make a micro-steps together, and each of these lasts as long as its largest micro-batch.
    """
    return 1 - batch.effective_batch_size / (world_size * batch.gradient_accumulation_steps * batch.micro_batch_size)


def plan_shapes(
    recipe: Recipe,
    cluster: Cluster,
    *,
    accelerator: Literal["cuda", "cpu"],
    batch_norm: str | None = None,
    memory_of: Callable[[Recipe], MemoryPlan | None] = lambda recipe: None,
) -> list[ShapeOption]:
    """Every candidate with its plan, or with why it has none; the recipe's own shape is the first.

    `memory_of` says which micro-batch fits the GPUs that a recipe asks for, and may raise RecipeError; `batch_norm`
    is the place of a BatchNorm in the model's code: then the sizes of micro-batches are part of the science.
    """
    options: list[ShapeOption] = []
    for shape in candidate_shapes(recipe, cluster):
        here = shaped(recipe, shape)
        plan, why_not = None, _refusal(here, cluster, accelerator)
        if not why_not:
            try:
                allocation = requested_allocation(here, cluster, accelerator=accelerator)
                plan = make_plan(here, cluster, allocation, memory=memory_of(here), batch_norm=batch_norm)
            except RecipeError as error:
                why_not = error.problems[0].what
        if plan is not None:
            own = options[0].plan if options else plan
            why_not = _other_batch(plan) or _other_model(plan, own, batch_norm) or _other_gpu(here, recipe, cluster)
        options.append(ShapeOption(shape, is_own=not options, plan=plan, why_not=why_not))
    return options


def _refusal(recipe: Recipe, cluster: Cluster, accelerator: str) -> str:
    """What the site cannot give, or '1,024 is not divisible by 24; 16 or 32 GPUs divide it'; '' for neither."""
    for problem in check_resources(recipe.resources, cluster):
        return problem.what
    batch, world = samples_per_step(recipe), own_shape(recipe, cluster).world_size
    if batch is None or batch % world == 0 or (recipe.batch.on_indivisible != "refuse" and batch > world):
        return ""
    devices = "GPUs" if accelerator == "cuda" else "ranks"
    worlds = " or ".join(map(format_count, nearest_worlds(batch, world)))
    if batch < world:
        return f"{format_count(batch)} samples are too few for {format_count(world)} {devices}; {worlds} can share them"
    return f"{format_count(batch)} is not divisible by {format_count(world)}; {worlds} {devices} divide it"


def _other_batch(plan: Plan) -> str:
    """That the optimizer would see another batch than the recipe asks for; '' where it would not."""
    batch = plan.batch
    if batch.requested in (None, batch.effective_batch_size):
        return ""
    size, wanted = format_count(batch.effective_batch_size), format_count(batch.requested or 0)
    lr = "" if plan.learning_rate.rule == "none" else ", and the lr would follow it"
    return f"the batch would be {size}, not {wanted}{lr}"


def _other_model(plan: Plan, own: Plan | None, batch_norm: str | None) -> str:
    """That a BatchNorm would see other micro-batches than on the recipe's own shape; '' where it would not.

    Where that one has no plan, the sizes that the plan's own warning takes for the recipe's stand in for it.
    """
    warned = any(warning.code == "W_BN" for warning in plan.warnings)
    if batch_norm is None or (not warned if own is None else _micro_sizes(plan) == _micro_sizes(own)):
        return ""
    sizes = " and ".join(map(str, sorted(_micro_sizes(plan))))
    return f"{batch_norm} normalises over micro-batches, here of {sizes}: another model"


def _micro_sizes(plan: Plan) -> set[int]:
    groups = plan.batch.groups(plan.topology.world_size)
    return {size for _, runs in groups for size, _ in runs}


def _other_gpu(here: Recipe, recipe: Recipe, cluster: Cluster) -> str:
    """That nobody has said whether a declared micro-batch fits the GPUs of `here`; '' for GPUs that are the same, or
    have at least as much memory, and where the micro-batch is predicted for them."""
    names = (partition_of(here, cluster) or "", partition_of(recipe, cluster) or "")
    other, own = (cluster.partitions.get(name) for name in names)
    if other is None or own is None or recipe.batch.micro == "auto" or other.nodes.gpu_type == own.nodes.gpu_type:
        return ""
    sizes = [nodes.gpu_memory and parse_bytes(nodes.gpu_memory) for nodes in (other.nodes, own.nodes)]
    if sizes[0] and sizes[1] and sizes[0] >= sizes[1]:
        return ""
    kinds = f"{other.nodes.gpu_type or 'of another type'}, not {own.nodes.gpu_type or 'the own ones'}"
    return f"its GPUs are {kinds}: whether the micro-batch fits is not known (batch.micro: auto finds out)"


def ranked(options: list[ShapeOption]) -> list[ShapeOption]:
    """The best first: exact ones, by their end where that can be compared, else by their start, else by how well they
    fill their ranks (fewest accumulation steps, smallest idle share).

    Among equals the recipe's own shape comes first, then its own partition, then the nearest world, then fewer nodes.
    What is not exact comes last, the recipe's own shape before others, then by world size.
    """
    own = next(option for option in options if option.is_own)
    turns = _turns(options, own)

    def key(option: ShapeOption) -> tuple[object, ...]:
        shape = option.shape
        if option.plan is None or not option.is_exact:
            return 1, not option.is_own, shape.world_size
        other_partition = shape.partition != own.shape.partition
        tie = (not option.is_own, other_partition, distance(shape, own.shape), shape.num_nodes)
        if option.wait_s is None:
            batch = option.plan.batch
            return 0, 1, batch.gradient_accumulation_steps, idle_share(batch, shape.world_size), *tie
        stays = option.is_own and option.duration_s is None
        end = (option.end_s is None, option.wait_s if option.end_s is None else option.end_s)
        return 0, 0, turns[option.wait_s, option.first_end_s], not stays, *end, *tie

    return sorted(options, key=key)


def _turns(options: list[ShapeOption], own: ShapeOption) -> dict[tuple[float, float | None], float]:
    """The turn of a (wait, first end): its start in seconds, starts within a minute as one; of equal turns the end
    decides. It is one and the same turn for all where every end can be compared.

    Where some speeds are not known, an end is compared with that of the recipe's own shape alone: what is known to end
    before it has its turn with it at the latest, and what is known to end after it has it with it at the earliest.
    """
    exact = [option for option in options if option.is_exact]
    times = {(option.wait_s, option.first_end_s) for option in exact if option.wait_s is not None}
    if all(first_end is not None for _, first_end in times):
        return dict.fromkeys(times, 0.0)
    starts = _as_one([wait for wait, _ in times])
    turns = {(wait, first_end): starts[wait] for wait, first_end in times}
    if own.end_s is not None and own.wait_s is not None and own.is_exact:
        for (wait, first_end), start in turns.items():
            if first_end is not None:
                bound = min if first_end <= own.end_s else max
                turns[wait, first_end] = bound(start, starts[own.wait_s])
    return turns


def _as_one(waits: list[float]) -> dict[float, float]:
    """Each wait with the first of those that it is at most SAME_START_S after."""
    firsts: dict[float, float] = {}
    first = -math.inf
    for wait in sorted(waits):
        first = first if wait - first <= SAME_START_S else wait
        firsts[wait] = first
    return firsts
