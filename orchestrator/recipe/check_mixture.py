"""What the mixture and the datasets must be to each other. Pure; `where` is a dotted key."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import Problem, did_you_mean
from orchestrator.recipe.mixture import Mixture
from orchestrator.recipe.schema import Recipe

_MIXES = ("weights", "temperature", "round_robin")


def strategy_of(recipe: Recipe) -> str:
    """How the recipe's datasets are mixed."""
    return "concatenate" if recipe.mixture is None else recipe.mixture.strategy


def mixture_has_datasets(recipe: Recipe) -> Iterator[Problem]:
    """A command without datasets has none to mix."""
    if recipe.mixture is not None and recipe.is_plain_command:
        what = "there is nothing to mix: a command without datasets reads its data by itself"
        yield Problem("mixture", what, "take it away, or declare datasets and open a session")


def weights_are_used(recipe: Recipe) -> Iterator[Problem]:
    """Weights stand on all training datasets, or on none."""
    by_weight = strategy_of(recipe) == "weights"
    for index, dataset in enumerate(recipe.datasets):
        where = f"datasets.{index}.weight"
        if by_weight and dataset.weight is None:
            yield Problem(where, f"{dataset.name} has no weight, and the mixture goes by weights", "write weight: 1")
        elif dataset.weight is not None and not by_weight:
            what = f"a weight belongs to mixture.strategy: weights, and this is {strategy_of(recipe)}"
            yield Problem(where, what, "take it away, or write mixture: {strategy: weights}")
    for index, dataset in enumerate(recipe.validation):
        if dataset.weight is not None:
            what = "validation sets are not mixed: each sample of each is seen once"
            yield Problem(f"validation.{index}.weight", what, "take it away")


def mixture_fits(recipe: Recipe) -> Iterator[Problem]:
    """Every setting belongs to the strategy that reads it."""
    mixture = recipe.mixture
    if mixture is None:
        return
    strategy = mixture.strategy
    if strategy != "temperature" and mixture.temperature != Mixture.model_fields["temperature"].default:
        what = f"{strategy} has no temperature; it belongs to mixture.strategy: temperature"
        yield Problem("mixture.temperature", what, "take it away, or write strategy: temperature")
    if strategy in ("concatenate", "round_robin") and mixture.unit == "tokens":
        what = f"{strategy} counts samples alone"
        yield Problem("mixture.unit", what, "take it away, or write strategy: weights or temperature")
    if strategy == "concatenate" and mixture.epoch is not None:
        what = "concatenated datasets have an epoch already: every sample once"
        yield Problem("mixture.epoch", what, f"take it away, or write strategy: {', '.join(_MIXES[:2])} or {_MIXES[2]}")
    if strategy == "concatenate" and mixture.exhaustion == "drop":
        what = "concatenated datasets end together: there is nothing to drop"
        yield Problem("mixture.exhaustion", what, "write repeat or error")
    if strategy in ("weights", "temperature") and mixture.unit == "tokens":
        yield from _tokens_are_known(recipe)


def _tokens_are_known(recipe: Recipe) -> Iterator[Problem]:
    if recipe.batch.sequence_length is not None:
        what = "every sample has batch.sequence_length tokens, so shares of tokens are shares of samples"
        yield Problem("mixture.unit", what, "take it away")
        return
    for index, dataset in enumerate(recipe.datasets):
        if dataset.tokens_per_sample is None and dataset.chars_per_sample is None:
            what = "tokens_per_sample is missing, and the mixture counts tokens"
            yield Problem(f"datasets.{index}.tokens_per_sample", what, "write the mean tokens of a sample")


def epoch_is_defined(recipe: Recipe) -> Iterator[Problem]:
    """`mixture.epoch` says one thing, and that there is."""
    mixture = recipe.mixture
    if mixture is None or mixture.epoch is None:
        return
    epoch = mixture.epoch
    given = [name for name in ("samples", "passes_of") if getattr(epoch, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) + " exclude each other" if given else "one of samples, passes_of is wanted"
        yield Problem("mixture.epoch", found, "write samples: 50000, or passes_of: and the name of a dataset")
    if mixture.exhaustion == "drop" and mixture.strategy != "concatenate":
        what = "with exhaustion: drop an epoch is every sample once"
        yield Problem("mixture.epoch", what, "take it away, or write exhaustion: repeat")
    names = [dataset.name for dataset in recipe.datasets]
    if epoch.passes_of is not None and epoch.passes_of not in names:
        what = f"there is no dataset {epoch.passes_of!r}"
        yield Problem("mixture.epoch.passes_of", what, did_you_mean(epoch.passes_of, names))


def iterables_keep_their_order(recipe: Recipe) -> Iterator[Problem]:
    """A stream cannot be shuffled with the others into one order; it can take its turn in a mixture."""
    if len(recipe.datasets) < 2 or strategy_of(recipe) != "concatenate":
        return
    for index, dataset in enumerate(recipe.datasets):
        if dataset.iterable:
            what = f"{dataset.name} is read in its own order, and cannot be shuffled together with the others"
            fix = "write mixture: {strategy: temperature, temperature: 1}, which mixes by size, or another strategy"
            yield Problem(f"datasets.{index}.iterable", what, fix)
