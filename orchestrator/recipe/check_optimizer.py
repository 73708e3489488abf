"""What a recipe's optimizer and schedule must be. Pure; a problem's `where` is a dotted key."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from orchestrator.errors import Problem
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.section import differs
from orchestrator.survey import Check

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


def _is_its_own(name: str, recipe: Recipe) -> Iterator[Problem]:
    optimizer, owners = recipe.optimizer, _OWN_FIELDS[name]
    if differs(optimizer, name) and optimizer.name not in owners:
        what, fix = f"{optimizer.name} has no {name}; it belongs to {_and(owners)}", "take it away"
        if optimizer.name in _NOT_IN_TORCH:
            what = "an optimizer of your own gets lr and args alone"
            fix = "take it away" if recipe.command else f"write it in optimizer.args: {{{name}: ...}}"
        yield Problem(f"optimizer.{name}", what, fix)


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _nesterov_has_momentum(recipe: Recipe) -> Iterator[Problem]:
    optimizer = recipe.optimizer
    if optimizer.nesterov and optimizer.name == "sgd" and not optimizer.momentum:
        fix = "write optimizer.momentum, such as 0.9"
        yield Problem("optimizer.nesterov", "Nesterov momentum needs a momentum", fix)


def _scaling_has_a_base(recipe: Recipe) -> Iterator[Problem]:
    optimizer = recipe.optimizer
    if optimizer.scaling in ("linear", "sqrt") and optimizer.base_batch is None:
        what = f"{optimizer.scaling} scaling needs the batch that lr belongs to"
        yield Problem("optimizer.scaling", what, "write optimizer.base_batch, or take scaling away")


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


def _args_have_a_target(recipe: Recipe) -> Iterator[Problem]:
    if recipe.optimizer.args and recipe.optimizer.target is None:
        yield Problem("optimizer.args", "args belong to optimizer.target, and there is none", "take them away")


def _final_ratio_is_of_cosine(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.schedule.name
    if name != "cosine" and differs(recipe.schedule, "final_ratio"):
        yield Problem("schedule.final_ratio", f"{name} has no final_ratio; it belongs to cosine", "take it away")


def _inverse_sqrt_has_a_warmup(recipe: Recipe) -> Iterator[Problem]:
    schedule = recipe.schedule
    if schedule.name == "inverse_sqrt" and (schedule.warmup is None or schedule.warmup.ratio == 0):
        what = "inverse_sqrt falls from the end of its warm-up, and there is none"
        yield Problem("schedule.name", what, "write schedule.warmup, such as {ratio: 0.1}")


OPTIMIZER_RULES: tuple[Check[Recipe], ...] = (
    *(partial(_is_its_own, name) for name in _OWN_FIELDS),
    _nesterov_has_momentum,
    _scaling_has_a_base,
    _optimizer_is_there,
    _args_have_a_target,
    _final_ratio_is_of_cosine,
    _inverse_sqrt_has_a_warmup,
)
