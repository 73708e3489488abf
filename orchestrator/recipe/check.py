"""What a recipe's sections must be to each other. Pure; every problem at once, its `where` a dotted key.

A rule is about one thing, and reads what that hangs on and no more: whatever else is broken, it speaks all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from operator import attrgetter

from orchestrator.errors import Problem
from orchestrator.recipe.amounts import Amount
from orchestrator.recipe.check_assets import asset_names_are_free, assets_are_whole, prepared_of_others
from orchestrator.recipe.check_batch import BATCH_RULES
from orchestrator.recipe.check_checkpoint import best_is_measured
from orchestrator.recipe.check_mixture import (
    epoch_is_defined,
    iterables_keep_their_order,
    mixture_fits,
    mixture_has_datasets,
    strategy_of,
    weights_are_used,
)
from orchestrator.recipe.check_optimizer import OPTIMIZER_RULES
from orchestrator.recipe.data import Dataset
from orchestrator.recipe.memory_limit import memory_limit_is_readable
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.section import Section, differs
from orchestrator.run_dir import ATTEMPT_VARIABLE, PULSE_VARIABLE
from orchestrator.survey import Check, readable
from orchestrator.validation import short

_GIT_CONFIG = ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")
_AMOUNTS = ("duration", "checkpoint.every", "schedule.warmup", "evaluation.every")
_NEEDED = {
    "model": "model: {target: model:build}",
    "datasets": "datasets: [{name: train, target: data:train, num_samples: 50000}]",
    "loss": "loss: {target: model:loss}",
}
"""What a recipe without a command needs, with an example of each."""


def check_recipe(recipe: Recipe) -> tuple[Problem, ...]:
    """Every cross-field problem of `recipe`; `where` is the dotted key that should change."""
    return tuple(problem for rule in RULES for problem in rule(recipe))


def _given(section: Section, names: tuple[str, ...]) -> list[str]:
    """Those of the fields that say something that could be read."""
    return [name for name in names if getattr(section, name, None) is not None]


def _exactly_one(where: str, section: Section, names: tuple[str, ...]) -> Iterator[Problem]:
    given = _given(section, names)
    if len(given) > 1:
        about = tuple(f"{where}.{name}" for name in given)
        yield Problem(where, f"{' and '.join(given)} exclude each other", "keep one of them", about=about)
    elif not given and readable(section, *names):
        what, fix = f"one of {', '.join(names)} is wanted, found none", f"write one of them below {where}"
        yield Problem(where, what, fix, about=tuple(f"{where}.{name}" for name in names))


def _one_batch(recipe: Recipe) -> Iterator[Problem]:
    return _exactly_one("batch", recipe.batch, ("effective", "per_gpu"))


def _one_unit(where: str, recipe: Recipe) -> Iterator[Problem]:
    amount: Amount | None = attrgetter(where)(recipe)
    if amount is not None:
        yield from _exactly_one(where, amount, tuple(type(amount).model_fields))


def _command_stands_alone(key: str, recipe: Recipe) -> Iterator[Problem]:
    if recipe.command and getattr(recipe, key):
        fix = f"take {key} away (the command trains by itself), or take command away"
        yield Problem(key, f"{key} and command exclude each other", fix)


def _model_or_command(recipe: Recipe) -> Iterator[Problem]:
    if recipe.command:
        return
    missing = [key for key in _NEEDED if readable(recipe, key) and not getattr(recipe, key)]
    if len(missing) == len(_NEEDED):
        yield Problem("", "nothing to train", "write model, datasets and loss, or a command")
        return
    for key in missing:
        what = f"{key} is missing: a recipe without command needs model, datasets and loss"
        yield Problem(key, what, f"write '{_NEEDED[key]}'")


def _unique_names(key: str, recipe: Recipe) -> Iterator[Problem]:
    datasets: tuple[Dataset, ...] = getattr(recipe, key)
    named = [(index, dataset.name) for index, dataset in enumerate(datasets) if readable(dataset, "name")]
    counts = Counter(name for _, name in named)
    for index, name in reversed(named):
        if counts[name] > 1:
            counts[name] -= 1
            yield Problem(f"{key}.{index}.name", f"the name {name!r} is taken already", "give each its own name")


def _command_can_count(unit: str, where: str, recipe: Recipe) -> Iterator[Problem]:
    amount: Amount | None = attrgetter(where)(recipe)
    if amount is None or not _given(amount, (unit,)) or not recipe.is_plain_command:
        return
    if unit != "tokens" or recipe.batch.unit == "samples":
        what = f"{unit} cannot be counted: a command declares no datasets"
        yield Problem(f"{where}.{unit}", what, "write samples or steps, or declare datasets and open a session")


def _tokens_can_be_counted(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.unit == "tokens" or not _given(recipe.duration, ("tokens",)):
        return
    for index, dataset in enumerate(recipe.datasets):
        names = ("tokens_per_sample", "chars_per_sample")
        if readable(dataset, *names) and not _given(dataset, names):
            what = "tokens_per_sample is missing, and the duration is in tokens"
            yield Problem(f"datasets.{index}.tokens_per_sample", what, "write the mean tokens of a sample")


def _warmup_ends(recipe: Recipe) -> Iterator[Problem]:
    """Where the recipe alone says so; `make_plan` knows the rest."""
    warmup, duration = recipe.schedule.warmup, recipe.duration
    if warmup is None or len(_units(warmup)) != 1 or len(_units(duration)) != 1:
        return
    if _units(warmup) == _units(duration):
        (unit,) = _units(warmup)
        ends, end, unit_name = getattr(warmup, unit), getattr(duration, unit), unit
    else:
        ends, end, unit_name = _samples(warmup, recipe), _samples(duration, recipe), "samples"
    if ends is not None and end is not None and ends > end:
        yield warmup_too_long(ends, end, unit_name)


def warmup_too_long(ends: float, end: float, unit: str) -> Problem:
    """That a warm-up ends after the run."""
    what = f"the warm-up of {short(ends)} {unit} is longer than the duration of {short(end)}"
    return Problem("schedule.warmup", what, "shorten the warm-up, or train longer")


def _units(amount: Amount) -> list[str]:
    """The units that an amount is given in, all of which could be read."""
    return [name for name in type(amount).model_fields if getattr(amount, name) is not None]


def _samples(amount: Amount, recipe: Recipe) -> float | None:
    """`amount` in samples; None where the recipe alone does not say."""
    if amount.epochs is not None and recipe.datasets and strategy_of(recipe) == "concatenate":
        return amount.epochs * sum(dataset.num_samples for dataset in recipe.datasets)
    if amount.steps is not None and recipe.batch.effective is not None:
        return amount.steps * recipe.batch.effective / (recipe.batch.sequence_length or 1)
    return amount.samples


def _metrics_are_measured(recipe: Recipe) -> Iterator[Problem]:
    if recipe.metrics and not recipe.validation and not recipe.command:
        what = "metrics are measured on validation sets, and there are none"
        yield Problem("metrics", what, "write validation, or take metrics away")


def _metrics_have_one_name_each(recipe: Recipe) -> Iterator[Problem]:
    taken = {"loss": "the loss"}
    for name, metric in recipe.metrics.items():
        if not readable(metric, "gives", "finish"):
            continue
        if metric.gives and metric.finish is None:
            yield Problem(f"metrics.{name}.gives", "names what finish makes, and there is none", "write finish")
        for given in metric.gives or (name,):
            if given in taken:
                what = f"{given!r} is the name of {taken[given]} already"
                yield Problem(f"metrics.{name}", what, "give each its own name")
            taken.setdefault(given, f"what metrics.{name} gives")


def _evaluation_has_a_set(recipe: Recipe) -> Iterator[Problem]:
    if recipe.opens_session and differs(recipe, "evaluation"):
        yield Problem("evaluation", "the command evaluates by itself", "take it away")
    elif not recipe.command and not recipe.validation:
        for key in ("every", "show"):
            if getattr(recipe.evaluation, key, None) is not None:
                what = "there are no validation sets"
                yield Problem(f"evaluation.{key}", what, "write validation, or take it away")


def _blocks_are_known(recipe: Recipe) -> Iterator[Problem]:
    if recipe.opens_session and recipe.activation_checkpointing:
        what = "the command makes its model by itself, and recomputes by itself"
        yield Problem("activation_checkpointing", what, "take it away, and use torch.utils.checkpoint in the script")


def _preflight_has_ranks(recipe: Recipe) -> Iterator[Problem]:
    if recipe.is_plain_command and recipe.preflight:
        what = "a command without datasets opens no session, which would measure"
        yield Problem("preflight", what, "take it away, or declare datasets and open a session")


def _tuning_has_a_loader(recipe: Recipe) -> Iterator[Problem]:
    """A stream is read by each process in turn, so it cannot be handed from some processes to others."""
    if not readable(recipe, "tuning") or not readable(recipe.tuning, "workers"):
        return
    if recipe.tuning.workers in (None, "off"):
        return
    if recipe.command:
        what = "the loader of a command is not tuned"
        yield Problem("tuning.workers", what, "take it away, and set loader.workers or your own loader's number")
    for dataset in recipe.datasets:
        if readable(dataset, "iterable") and dataset.iterable:
            what = f"{dataset.name} is iterable: its order hangs on the processes that read it"
            yield Problem(
                "tuning.workers", what, "take it away, or make the dataset map-style: __len__ and __getitem__"
            )


def _precision_can_be_tuned(recipe: Recipe) -> Iterator[Problem]:
    if not readable(recipe, "tuning") or not readable(recipe.tuning, "amp") or recipe.tuning.amp != "auto":
        return
    if recipe.command:
        yield Problem("tuning.amp", "the precision of a command is not tuned", "take it away, and set precision")
    elif readable(recipe, "precision") and recipe.precision != "fp32":
        what = f"{recipe.precision} stays as it is: only fp32 is tuned"
        yield Problem("tuning.amp", what, "take it away, or write precision: fp32")


def _non_finite_fits(recipe: Recipe) -> Iterator[Problem]:
    policy = recipe.on_non_finite_loss
    if policy is None:
        return
    if recipe.command:
        what = "the loss of a command is its own affair"
        yield Problem("on_non_finite_loss", what, "take it away")
    elif policy.action == "stop" and differs(policy, "budget"):
        what = "stop passes over nothing"
        yield Problem("on_non_finite_loss.budget", what, "take it away, or write action: skip or roll_back")


def _variables_are_free(mirror: str, taken: tuple[str, ...], recipe: Recipe) -> Iterator[Problem]:
    if getattr(recipe.env.mirrors, mirror):
        for name in recipe.env.variables:
            if name.startswith(taken):
                what = f"env.mirrors.{mirror} sets this variable"
                yield Problem(f"env.variables.{name}", what, "keep one of them")


def _attempt_is_told(recipe: Recipe) -> Iterator[Problem]:
    for name in (ATTEMPT_VARIABLE, PULSE_VARIABLE):
        if name in recipe.env.variables:
            yield Problem(f"env.variables.{name}", "every start of the run sets this variable", "take it away")


RULES: tuple[Check[Recipe], ...] = (
    *(partial(_command_stands_alone, key) for key in ("model", "validation", "loss", "metrics", "compile")),
    _model_or_command,
    *(partial(_unique_names, key) for key in ("datasets", "validation")),
    _one_batch,
    *(partial(_one_unit, where) for where in _AMOUNTS),
    *(partial(_command_can_count, unit, where) for where in _AMOUNTS for unit in ("epochs", "tokens")),
    _tokens_can_be_counted,
    _warmup_ends,
    *BATCH_RULES,
    *OPTIMIZER_RULES,
    _metrics_are_measured,
    _metrics_have_one_name_each,
    _evaluation_has_a_set,
    _blocks_are_known,
    _preflight_has_ranks,
    _tuning_has_a_loader,
    _precision_can_be_tuned,
    partial(_variables_are_free, "git", _GIT_CONFIG),
    partial(_variables_are_free, "huggingface", ("HF_ENDPOINT",)),
    best_is_measured,
    _non_finite_fits,
    _attempt_is_told,
    memory_limit_is_readable,
    mixture_has_datasets,
    weights_are_used,
    mixture_fits,
    epoch_is_defined,
    iterables_keep_their_order,
    assets_are_whole,
    prepared_of_others,
    asset_names_are_free,
)
"""Every rule reads a whole recipe, or what could be read of it (see `survey`)."""
