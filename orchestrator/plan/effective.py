"""From a recipe's `batch` section to the batch on so many ranks, or to the problem that says what to write. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.errors import Problem
from orchestrator.plan.batch import (
    BatchPlan,
    Indivisible,
    MicroBatchLimits,
    NothingFits,
    balanced,
    batch_per_gpu,
    plan_batch,
)
from orchestrator.plan.learning_rate import plan_learning_rate
from orchestrator.plan.learnt import LearntLimit
from orchestrator.plan.memory import MemoryPlan
from orchestrator.recipe.plan_names import asks_for_sizes
from orchestrator.recipe.schema import Batch, Recipe
from orchestrator.survey import readable
from orchestrator.units import GIB

MORE_ROOM = "activation_checkpointing: true, shorter samples or GPUs with more memory"
"""What is left to do when not one sample fits."""
_MOST_NAMED = 8
"""So many ranks' samples are spelt out in a message."""


def effective_samples(wanted: Batch) -> int | None:
    """The declared effective batch in samples; None where there is none, or its tokens are no whole samples."""
    if wanted.effective is None or wanted.unit == "samples":
        return wanted.effective
    if wanted.sequence_length is None or wanted.effective % wanted.sequence_length:
        return None
    return wanted.effective // wanted.sequence_length


def check_batch(recipe: Recipe) -> Iterator[Problem]:
    """Whether the ranks that the recipe asks for can share its batch; dotted keys.

    Nothing is said of a batch that is no number of samples: `check_recipe` tells that.
    """
    batch = _on_requested_ranks(recipe)
    if isinstance(batch, Indivisible):
        yield _indivisible(batch, recipe)


def check_learning_rate(recipe: Recipe) -> Iterator[Problem]:
    """Whether its lr can follow the batch on those ranks; where they cannot share it, the declared one."""
    wanted = recipe.batch
    if wanted.effective is not None and wanted.on_indivisible != "nearest":
        size = wanted.effective if wanted.per_gpu is None and effective_samples(wanted) is not None else None
    else:
        batch = _on_requested_ranks(recipe)
        size = None if batch is None else batch.effective_batch_size * (_length(wanted) or 1)
    if size is None:
        return
    learning_rate = plan_learning_rate(recipe.optimizer, effective_batch_size=size, requested=wanted.effective)
    if isinstance(learning_rate, Problem):
        yield learning_rate


BATCH_CHECKS = (check_batch, check_learning_rate)


def _on_requested_ranks(recipe: Recipe) -> BatchPlan | Indivisible | None:
    """The batch, however it becomes micro-batches; None where it is no number of samples."""
    if [effective_samples(recipe.batch), recipe.batch.per_gpu].count(None) != 1:
        return None
    batch = _planned(recipe.batch, recipe.resources.num_nodes * recipe.resources.gpus_per_node, MicroBatchLimits())
    assert not isinstance(batch, NothingFits), "without a limit everything fits"
    return batch


def has_one_size(recipe: Recipe) -> bool:
    """Whether all micro-batches have one size: because the recipe says so, or because a command is told one.

    A session gives micro-batches of any size, unless its command asks for the one.
    """
    is_told_one = recipe.is_plain_command or asks_for_sizes(recipe.command)
    return recipe.batch.equal_micro or (is_told_one and recipe.batch.on_indivisible != "uneven")


def effective_batch(
    recipe: Recipe, *, world_size: int, memory: MemoryPlan | None = None, learnt: LearntLimit | None = None
) -> BatchPlan | Problem:
    """The batch that `recipe` means on `world_size` ranks; a problem, at its dotted key, where there is none.

    Tokens become samples of `sequence_length` tokens each. `memory` is the limit where the recipe says `micro: auto`;
    `learnt` holds wherever it is the lower one.
    """
    wanted = recipe.batch
    limits = MicroBatchLimits(
        None if wanted.micro == "auto" else wanted.micro, equal=has_one_size(recipe), multiple=wanted.micro_multiple
    )
    batch = _planned(wanted, world_size, limits)
    if isinstance(batch, BatchPlan):
        largest = limit_before_learnt(recipe, batch, world_size=world_size, memory=memory)
        if learnt is not None and learnt.lowers(largest):
            largest = learnt.largest_micro_batch
        batch = _planned(wanted, world_size, replace(limits, largest=largest))
    if isinstance(batch, NothingFits):
        return _does_not_fit(batch, memory)
    if isinstance(batch, Indivisible):
        return _indivisible(batch, recipe)
    return replace(batch, sequence_length=_length(wanted))


def limit_before_learnt(recipe: Recipe, batch: BatchPlan, *, world_size: int, memory: MemoryPlan | None) -> int | None:
    """The limit on a micro-batch by the recipe, or by the prediction where it says `micro: auto`; None for none."""
    if recipe.batch.micro != "auto":
        return recipe.batch.micro
    return None if memory is None else memory.limit(-(-batch.effective_batch_size // world_size))


def _length(wanted: Batch) -> int | None:
    """Tokens in every sample, where the batch is counted in them."""
    return wanted.sequence_length if wanted.unit == "tokens" else None


def _planned(wanted: Batch, world_size: int, limits: MicroBatchLimits) -> BatchPlan | Indivisible | NothingFits:
    if wanted.per_gpu is not None:
        return batch_per_gpu(wanted.per_gpu, world_size=world_size, limits=limits)
    samples = effective_samples(wanted)
    assert samples is not None, "check_recipe lets exactly one through"
    return plan_batch(
        samples,
        world_size=world_size,
        limits=limits,
        on_indivisible=wanted.on_indivisible,
        tolerance=wanted.tolerance if wanted.on_indivisible == "nearest" else 0.0,
    )


def _indivisible(refused: Indivisible, recipe: Recipe) -> Problem:
    wanted = recipe.batch
    size, world, length = refused.effective_batch_size, refused.world_size, _length(wanted)
    named = f"{size}" if length is None else f"{size * length} tokens = {size} samples"
    batches = _either([batch * (length or 1) for batch in refused.batches])
    if size < world:
        what = f"{named} cannot be shared by {world} ranks"
        return Problem("batch.effective", what, f"use {batches}, or a world of {_either(refused.worlds)}")
    what = f"{named} cannot be shared evenly by {world} ranks"
    if wanted.on_indivisible == "nearest":
        away = min(abs(batch - size) for batch in refused.batches) / size
        what += f"; the nearest batch is {away:.2%} away, more than batch.tolerance {wanted.tolerance:.2%}"
    if not may_be_uneven(recipe):
        return Problem("batch.effective", what, f"use {batches}, or a world of {_either(refused.worlds)}")
    uneven = " + ".join(map(str, balanced(size, world))) if world <= _MOST_NAMED else "the batch stays exact"
    fix = f"use {batches}, a world of {_either(refused.worlds)}, or batch.on_indivisible: uneven ({uneven})"
    return Problem("batch.effective", what, fix)


def may_be_uneven(recipe: Recipe) -> bool:
    """Whether nothing in the recipe wants micro-batches of one size; no where that could not be read."""
    if not readable(recipe, "command", "batch.equal_micro"):
        return False
    return not recipe.batch.equal_micro and not asks_for_sizes(recipe.command)


def _does_not_fit(refused: NothingFits, memory: MemoryPlan | None) -> Problem:
    assert memory is not None, "a recipe's own limit is at least one"
    least = "not one sample fits" if memory.fewest == 1 else f"not even {memory.fewest} samples fit"
    what = f"{least} a GPU of {memory.gpu_bytes / GIB:.3g} GiB"
    by = f"{memory.by}: it could not be simulated: {memory.why}" if memory.why else memory.by
    most = memory.largest_without_accumulation
    if most < 1:
        return Problem("batch.micro", f"{what} ({by})", f"use {MORE_ROOM}")
    ranks = -(-refused.effective_batch_size // most)
    what += f" beside kept gradients; without accumulation {most} would ({by})"
    return Problem("batch.micro", what, f"use at least {ranks} ranks, or {MORE_ROOM}")


def _either(numbers: tuple[int, ...] | list[int]) -> str:
    return " or ".join(map(str, numbers))
