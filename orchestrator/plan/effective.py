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
from orchestrator.plan.memory import MemoryPlan
from orchestrator.recipe.schema import Batch, Recipe
from orchestrator.units import GIB

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
    """Whether the ranks that the recipe asks for can share its batch, and its lr follow it; dotted keys.

    Nothing is said of a batch that is no number of samples: `check_recipe` tells that.
    """
    wanted = recipe.batch
    if [effective_samples(wanted), wanted.per_gpu].count(None) != 1:
        return
    batch = effective_batch(recipe, world_size=recipe.resources.num_nodes * recipe.resources.gpus_per_node)
    if isinstance(batch, Problem):
        yield batch
        return
    learning_rate = plan_learning_rate(recipe.optimizer, effective_batch_size=batch.effective_in_unit)
    if isinstance(learning_rate, Problem):
        yield learning_rate


def effective_batch(recipe: Recipe, *, world_size: int, memory: MemoryPlan | None = None) -> BatchPlan | Problem:
    """The batch that `recipe` means on `world_size` ranks; a problem, at its dotted key, where there is none.

    Tokens become samples of `sequence_length` tokens each. `memory` is the limit where the recipe says `micro: auto`.
    """
    wanted = recipe.batch
    batch = _planned(wanted, world_size, None if wanted.micro == "auto" else wanted.micro)
    if wanted.micro == "auto" and memory is not None and isinstance(batch, BatchPlan):
        limit = memory.limit(-(-batch.effective_batch_size // world_size))
        batch = _planned(wanted, world_size, limit)
    if isinstance(batch, NothingFits):
        return _does_not_fit(batch, memory)
    if isinstance(batch, Indivisible):
        return _indivisible(batch, wanted)
    return replace(batch, sequence_length=_length(wanted))


def _length(wanted: Batch) -> int | None:
    """Tokens in every sample, where the batch is counted in them."""
    return wanted.sequence_length if wanted.unit == "tokens" else None


def _planned(wanted: Batch, world_size: int, largest: int | None) -> BatchPlan | Indivisible | NothingFits:
    limits = MicroBatchLimits(largest, equal=wanted.equal_micro, multiple=wanted.micro_multiple)
    if wanted.per_gpu is not None:
        return batch_per_gpu(wanted.per_gpu, world_size=world_size, limits=limits)
    samples = effective_samples(wanted)
    assert samples is not None, "check_recipe lets exactly one through"
    return plan_batch(
        samples,
        world_size=world_size,
        limits=limits,
        on_indivisible=wanted.on_indivisible,
        tolerance=wanted.tolerance,
    )


def _indivisible(refused: Indivisible, wanted: Batch) -> Problem:
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
    uneven = " + ".join(map(str, balanced(size, world))) if world <= _MOST_NAMED else "the batch stays exact"
    fix = f"use {batches}, a world of {_either(refused.worlds)}, or batch.on_indivisible: uneven ({uneven})"
    return Problem("batch.effective", what, fix)


def _does_not_fit(refused: NothingFits, memory: MemoryPlan | None) -> Problem:
    assert memory is not None, "a recipe's own limit is at least one"
    least = "not one sample fits" if memory.fewest == 1 else f"not even {memory.fewest} samples fit"
    what = f"{least} a GPU of {memory.gpu_bytes / GIB:.3g} GiB"
    fix = "activation_checkpointing: true, shorter samples or GPUs with more memory"
    by = f"{memory.by}: it could not be simulated: {memory.why}" if memory.why else memory.by
    most = memory.largest_without_accumulation
    if most < 1:
        return Problem("batch.micro", f"{what} ({by})", f"use {fix}")
    ranks = -(-refused.effective_batch_size // most)
    what += f" beside kept gradients; without accumulation {most} would ({by})"
    return Problem("batch.micro", what, f"use at least {ranks} ranks, or {fix}")


def _either(numbers: tuple[int, ...] | list[int]) -> str:
    return " or ".join(map(str, numbers))
