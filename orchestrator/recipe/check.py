"""What a recipe's sections must be to each other. Pure; every problem at once, its `where` a dotted key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from orchestrator.errors import Problem
from orchestrator.recipe.amounts import Amount
from orchestrator.recipe.check_assets import asset_names_are_free, assets_are_whole
from orchestrator.recipe.data import Dataset
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.section import Section
from orchestrator.validation import short

_GIT_CONFIG = ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")


def check_recipe(recipe: Recipe) -> tuple[Problem, ...]:
    """Every cross-field problem of `recipe`; `where` is the dotted key that should change."""
    return tuple(problem for rule in RULES for problem in rule(recipe))


def _differs(section: Section, name: str) -> bool:
    """Whether a field says something else than its default."""
    return bool(getattr(section, name) != type(section).model_fields[name].get_default(call_default_factory=True))


def _units(amount: Section) -> tuple[str, ...]:
    return tuple(name for name in type(amount).model_fields if getattr(amount, name) is not None)


def _exactly_one(where: str, section: Section, names: tuple[str, ...]) -> Iterator[Problem]:
    given = [name for name in names if getattr(section, name) is not None]
    if not given:
        yield Problem(where, f"one of {', '.join(names)} is wanted, found none", f"write one of them below {where}")
    elif len(given) > 1:
        yield Problem(where, f"{' and '.join(given)} exclude each other", "keep one of them")


def _amounts(recipe: Recipe) -> Iterator[tuple[str, Section]]:
    yield "duration", recipe.duration
    yield "checkpoint.every", recipe.checkpoint.every
    if recipe.schedule.warmup is not None:
        yield "schedule.warmup", recipe.schedule.warmup
    if recipe.evaluation.every is not None:
        yield "evaluation.every", recipe.evaluation.every


def _one_unit_each(recipe: Recipe) -> Iterator[Problem]:
    yield from _exactly_one("batch", recipe.batch, ("effective", "per_gpu"))
    for where, amount in _amounts(recipe):
        yield from _exactly_one(where, amount, tuple(type(amount).model_fields))


def _model_or_command(recipe: Recipe) -> Iterator[Problem]:
    if recipe.command:
        for key in ("model", "datasets", "validation", "loss", "metrics"):
            if getattr(recipe, key):
                fix = f"take {key} away (the command trains by itself), or take command away"
                yield Problem(key, f"{key} and command exclude each other", fix)
    elif recipe.model is None and not recipe.datasets and recipe.loss is None:
        yield Problem("", "nothing to train", "write model, datasets and loss, or a command")
    else:
        examples = {
            "model": "model: {target: model:build}",
            "datasets": "datasets: [{name: train, target: data:train, num_samples: 50000}]",
            "loss": "loss: {target: model:loss}",
        }
        for key, example in examples.items():
            if not getattr(recipe, key):
                yield Problem(
                    key,
                    f"{key} is missing: a recipe without command needs model, datasets and loss",
                    f"write '{example}'",
                )


def _unique_names(recipe: Recipe) -> Iterator[Problem]:
    sections: dict[str, tuple[Dataset, ...]] = {"datasets": recipe.datasets, "validation": recipe.validation}
    for key, datasets in sections.items():
        counts = Counter(dataset.name for dataset in datasets)
        for index, dataset in reversed(list(enumerate(datasets))):
            if counts[dataset.name] > 1:
                counts[dataset.name] -= 1
                yield Problem(
                    f"{key}.{index}.name", f"the name {dataset.name!r} is taken already", "give each its own name"
                )


def _sizes_are_known(recipe: Recipe) -> Iterator[Problem]:
    if recipe.command:
        uncounted = {"epochs", "ratio"} | ({"tokens"} if recipe.batch.unit == "samples" else set())
        for where, amount in _amounts(recipe):
            for unit in uncounted.intersection(_units(amount)):
                what = f"{unit} cannot be counted: a command declares no datasets"
                yield Problem(f"{where}.{unit}", what, "write samples or steps")
    elif recipe.duration.tokens is not None and recipe.batch.unit == "samples":
        for index, dataset in enumerate(recipe.datasets):
            if dataset.tokens_per_sample is None and dataset.chars_per_sample is None:
                what = "tokens_per_sample is missing, and the duration is in tokens"
                yield Problem(f"datasets.{index}.tokens_per_sample", what, "write the mean tokens of a sample")


def _warmup_ends(recipe: Recipe) -> Iterator[Problem]:
    warmup = recipe.schedule.warmup
    if warmup is None or len(_units(warmup)) != 1 or len(_units(recipe.duration)) != 1:
        return
    if _units(warmup) == _units(recipe.duration):
        (unit,) = _units(warmup)
        ends, end, unit_name = getattr(warmup, unit), getattr(recipe.duration, unit), unit
    else:
        ends, end, unit_name = _samples(warmup, recipe), _samples(recipe.duration, recipe), "samples"
    if ends is not None and end is not None and ends > end:
        what = f"the warm-up of {short(ends)} {unit_name} is longer than the duration of {short(end)}"
        yield Problem("schedule.warmup", what, "shorten the warm-up, or train longer")


def _samples(amount: Amount, recipe: Recipe) -> float | None:
    """`amount` in samples; None where the recipe alone does not say."""
    if amount.epochs is not None and recipe.datasets:
        return amount.epochs * sum(dataset.num_samples for dataset in recipe.datasets)
    if amount.steps is not None and recipe.batch.effective is not None:
        return amount.steps * recipe.batch.effective / (recipe.batch.sequence_length or 1)
    return amount.samples


_ADAM = ("adam", "adamw", "nadam", "radam")
_NOT_IN_TORCH = ("lamb", "lars", "other")
_OWN_FIELDS: dict[str, tuple[str, ...]] = {
    "betas": _ADAM,
    "eps": (*_ADAM, "rmsprop"),
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
    "weight_decay": (*_ADAM, "sgd", "rmsprop", "adafactor"),
}
"""Settings that torch's optimizers take, and which those are; any other optimizer takes `args` alone."""


def _optimizer_fits(recipe: Recipe) -> Iterator[Problem]:
    optimizer = recipe.optimizer
    for name, owners in _OWN_FIELDS.items():
        if optimizer.name not in owners and _differs(optimizer, name):
            what, fix = f"{optimizer.name} has no {name}; it belongs to {_and(owners)}", "take it away"
            if optimizer.name in _NOT_IN_TORCH:
                what = "an optimizer of your own gets lr and args alone"
                fix = "take it away" if recipe.command else f"write it in optimizer.args: {{{name}: ...}}"
            yield Problem(f"optimizer.{name}", what, fix)
    if optimizer.name == "sgd" and optimizer.nesterov and not optimizer.momentum:
        yield Problem(
            "optimizer.nesterov", "Nesterov momentum needs a momentum", "write optimizer.momentum, such as 0.9"
        )
    if optimizer.scaling in ("linear", "sqrt") and optimizer.base_batch is None:
        what = f"{optimizer.scaling} scaling needs the batch that lr belongs to"
        yield Problem("optimizer.scaling", what, "write optimizer.base_batch, or take scaling away")


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _optimizer_is_there(recipe: Recipe) -> Iterator[Problem]:
    optimizer = recipe.optimizer
    if recipe.command and optimizer.target is not None:
        what = "optimizer.target and command exclude each other"
        yield Problem("optimizer.target", what, "take it away: the command makes its optimizer by itself")
    elif not recipe.command and optimizer.name in _NOT_IN_TORCH and optimizer.target is None:
        what = f"PyTorch has no {optimizer.name}" if optimizer.name != "other" else "other is an optimizer of your own"
        yield Problem("optimizer.name", what, "write optimizer.target: module:function, or choose one that it has")
    elif optimizer.target is not None and optimizer.name not in _NOT_IN_TORCH:
        what = f"{optimizer.name} is PyTorch's own, and a target would replace it"
        yield Problem("optimizer.target", what, "take it away, or write name: other")
    if optimizer.args and optimizer.target is None:
        yield Problem("optimizer.args", "args belong to optimizer.target, and there is none", "take them away")


def _schedule_fits(recipe: Recipe) -> Iterator[Problem]:
    schedule = recipe.schedule
    if schedule.name != "cosine" and _differs(schedule, "final_ratio"):
        yield Problem(
            "schedule.final_ratio", f"{schedule.name} has no final_ratio; it belongs to cosine", "take it away"
        )
    if schedule.name == "inverse_sqrt" and (schedule.warmup is None or schedule.warmup.ratio == 0):
        what = "inverse_sqrt falls from the end of its warm-up, and there is none"
        yield Problem("schedule.name", what, "write schedule.warmup, such as {ratio: 0.1}")


def _batch_fits(recipe: Recipe) -> Iterator[Problem]:
    batch = recipe.batch
    if batch.per_gpu is not None and batch.on_indivisible != "refuse":
        yield Problem("batch.on_indivisible", "a batch given per_gpu is always shared evenly", "take it away")
    elif batch.on_indivisible != "nearest" and _differs(batch, "tolerance"):
        yield Problem(
            "batch.tolerance", "belongs to on_indivisible: nearest", "take it away, or write on_indivisible: nearest"
        )
    if batch.micro is None:
        for name in ("equal_micro", "micro_multiple"):
            if _differs(batch, name):
                what = "without batch.micro a rank takes its samples in one micro-batch"
                yield Problem(f"batch.{name}", what, "write batch.micro, or take it away")
    elif batch.equal_micro and batch.micro_multiple > 1:
        yield Problem("batch.micro_multiple", "belongs to micro-batches that may differ", "take it or equal_micro away")
    elif batch.micro != "auto" and batch.micro_multiple > batch.micro:
        what = f"no multiple of {batch.micro_multiple} is within batch.micro, which is {batch.micro}"
        yield Problem("batch.micro_multiple", what, f"write {batch.micro} or less")
    if batch.equal_micro and batch.on_indivisible == "uneven":
        what = "ranks that differ by a sample have no micro-batches of one size"
        yield Problem("batch.equal_micro", what, "take it away, or on_indivisible: uneven")


def _tokens_are_sequences(recipe: Recipe) -> Iterator[Problem]:
    batch = recipe.batch
    if batch.unit == "samples":
        if batch.sequence_length is not None:
            yield Problem(
                "batch.sequence_length", "belongs to a batch in tokens", "write unit: tokens, or take it away"
            )
        return
    length = batch.sequence_length
    if length is None:
        what = "a batch in tokens needs the tokens of a sample"
        yield Problem("batch.unit", what, "write batch.sequence_length, such as 4096, or unit: samples")
    if batch.per_gpu is not None:
        yield Problem("batch.unit", "per_gpu counts samples", "take unit away, or write effective instead of per_gpu")
    if length is not None and batch.effective is not None and batch.effective % length:
        below = batch.effective // length * length
        near = " or ".join(str(size) for size in (below, below + length) if size)
        what = f"{batch.effective} tokens are not a whole number of samples of {length}"
        yield Problem("batch.effective", what, f"write {near}")
    for index, dataset in enumerate(recipe.datasets):
        if length is not None and dataset.tokens_per_sample not in (None, length):
            what = f"{dataset.tokens_per_sample} tokens in a sample, and batch.sequence_length says {length}"
            yield Problem(f"datasets.{index}.tokens_per_sample", what, "take it away, or write batch.unit: samples")


def _validation_is_there(recipe: Recipe) -> Iterator[Problem]:
    if recipe.validation or recipe.command:
        return
    if recipe.metrics:
        yield Problem(
            "metrics",
            "metrics are measured on validation sets, and there are none",
            "write validation, or take metrics away",
        )
    if recipe.evaluation.every is not None:
        yield Problem("evaluation.every", "there are no validation sets", "write validation, or take it away")


def _variables_are_free(recipe: Recipe) -> Iterator[Problem]:
    mirrors = recipe.env.mirrors
    for name in recipe.env.variables:
        taken = "env.mirrors.git" if mirrors.git and name.startswith(_GIT_CONFIG) else ""
        if mirrors.huggingface and name == "HF_ENDPOINT":
            taken = "env.mirrors.huggingface"
        if taken:
            yield Problem(f"env.variables.{name}", f"{taken} sets this variable", "keep one of them")


RULES: tuple[Callable[[Recipe], Iterator[Problem]], ...] = (
    _model_or_command,
    _unique_names,
    _one_unit_each,
    _sizes_are_known,
    _warmup_ends,
    _batch_fits,
    _tokens_are_sequences,
    _optimizer_fits,
    _optimizer_is_there,
    _schedule_fits,
    _validation_is_there,
    _variables_are_free,
    assets_are_whole,
    asset_names_are_free,
)
"""Every rule reads a whole recipe, or what could be read of it (see `survey`)."""
