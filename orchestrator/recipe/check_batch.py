"""What a recipe's batch must be, in itself and beside its datasets and its command. Pure; `where` is a dotted key."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from orchestrator.errors import Problem
from orchestrator.recipe.plan_names import asks_for_sizes
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.section import differs
from orchestrator.survey import Check, readable


def _per_gpu_is_even(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.on_indivisible != "refuse" and recipe.batch.per_gpu is not None:
        yield Problem("batch.on_indivisible", "a batch given per_gpu is always shared evenly", "take it away")


def _tolerance_is_of_nearest(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.on_indivisible != "nearest" and differs(recipe.batch, "tolerance"):
        fix = "take it away, or write on_indivisible: nearest"
        yield Problem("batch.tolerance", "belongs to on_indivisible: nearest", fix)


def _limits_something(name: str, recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.micro is None and differs(recipe.batch, name):
        what = "without batch.micro a rank takes its samples in one micro-batch"
        yield Problem(f"batch.{name}", what, "write batch.micro, or take it away")


def _sizes_may_differ(recipe: Recipe) -> Iterator[Problem]:
    batch = recipe.batch
    if batch.micro_multiple == 1 or batch.micro is None:
        return
    if batch.equal_micro:
        yield Problem("batch.micro_multiple", "belongs to micro-batches that may differ", "take it or equal_micro away")
    elif batch.micro != "auto" and batch.micro_multiple > batch.micro:
        what = f"no multiple of {batch.micro_multiple} is within batch.micro, which is {batch.micro}"
        yield Problem("batch.micro_multiple", what, f"write {batch.micro} or less")


def _equal_is_not_uneven(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.equal_micro and recipe.batch.on_indivisible == "uneven":
        what = "ranks that differ by a sample have no micro-batches of one size"
        yield Problem("batch.equal_micro", what, "take it away, or on_indivisible: uneven")


def _command_is_not_uneven(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.on_indivisible == "uneven" and asks_for_sizes(recipe.command):
        what = "ranks that differ by a sample have no micro-batches of one size, and the command asks for it"
        fix = "take it away, or ${plan.micro_batch_size} and ${plan.gradient_accumulation_steps}"
        yield Problem("batch.on_indivisible", what, fix)


def _length_belongs_to_tokens(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.unit == "samples" and recipe.batch.sequence_length is not None:
        yield Problem("batch.sequence_length", "belongs to a batch in tokens", "write unit: tokens, or take it away")


def _tokens_have_a_length(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.unit == "tokens" and recipe.batch.sequence_length is None:
        what = "a batch in tokens needs the tokens of a sample"
        yield Problem("batch.unit", what, "write batch.sequence_length, such as 4096, or unit: samples")


def _per_gpu_is_in_samples(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.unit == "tokens" and recipe.batch.per_gpu is not None:
        yield Problem("batch.unit", "per_gpu counts samples", "take unit away, or write effective instead of per_gpu")


def _tokens_are_whole_samples(recipe: Recipe) -> Iterator[Problem]:
    """The advice is a batch that the requested ranks can share."""
    batch = recipe.batch
    length = batch.sequence_length
    if batch.unit == "tokens" and length is not None and batch.effective is not None and batch.effective % length:
        share = length
        if readable(recipe, "resources.num_nodes", "resources.gpus_per_node"):
            share *= recipe.resources.num_nodes * recipe.resources.gpus_per_node
        below = batch.effective // share * share
        near = " or ".join(str(size) for size in (below, below + share) if size)
        what = f"{batch.effective} tokens are not a whole number of samples of {length}"
        yield Problem("batch.effective", what, f"write {near}")


def _samples_have_that_length(recipe: Recipe) -> Iterator[Problem]:
    length = recipe.batch.sequence_length
    if recipe.batch.unit == "samples" or length is None:
        return
    for index, dataset in enumerate(recipe.datasets):
        if readable(dataset, "tokens_per_sample") and dataset.tokens_per_sample not in (None, length):
            what = f"{dataset.tokens_per_sample} tokens in a sample, and batch.sequence_length says {length}"
            yield Problem(f"datasets.{index}.tokens_per_sample", what, "take it away, or write batch.unit: samples")


BATCH_RULES: tuple[Check[Recipe], ...] = (
    _per_gpu_is_even,
    _tolerance_is_of_nearest,
    partial(_limits_something, "equal_micro"),
    partial(_limits_something, "micro_multiple"),
    _sizes_may_differ,
    _equal_is_not_uneven,
    _command_is_not_uneven,
    _length_belongs_to_tokens,
    _tokens_have_a_length,
    _per_gpu_is_in_samples,
    _tokens_are_whole_samples,
    _samples_have_that_length,
)
