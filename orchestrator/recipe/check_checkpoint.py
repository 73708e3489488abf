"""What `checkpoint.keep_best` must be beside what a recipe measures. Pure; a problem's `where` is a dotted key."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from orchestrator.errors import Problem, did_you_mean
from orchestrator.recipe.schema import Recipe


def measured_metrics(recipe: Recipe) -> tuple[str, ...]:
    """What validation measures, by the names that the journal has behind `val/`."""
    given = ((metric.gives or (name,)) for name, metric in recipe.metrics.items())
    names = ("loss", *chain.from_iterable(given))
    if len(recipe.validation) < 2:
        return names if recipe.validation else ()
    return tuple(f"{dataset.name}/{name}" for dataset in recipe.validation for name in names)


def best_is_measured(recipe: Recipe) -> Iterator[Problem]:
    """The best checkpoint is the best by something that is measured."""
    best = recipe.checkpoint.keep_best
    if best is None:
        return
    if recipe.command:
        by_itself = "evaluates" if recipe.opens_session else "saves"
        what = f"keep_best and command exclude each other: the command {by_itself} by itself"
        yield Problem("checkpoint.keep_best", what, "take it away")
    elif not recipe.validation:
        yield Problem("checkpoint.keep_best", "there are no validation sets", "write validation, or take it away")
    elif best.metric not in (measured := measured_metrics(recipe)):
        what = f"validation does not measure {best.metric!r}"
        yield Problem("checkpoint.keep_best.metric", what, did_you_mean(best.metric, measured))
