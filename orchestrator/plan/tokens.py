"""How many tokens the samples hold: as declared, else by the four-characters rule. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from orchestrator.recipe.data import Dataset

CHARS_PER_TOKEN = 4
"""One token is about four characters of English text, within 10 %. Chinese has two to five times as many tokens, so
a declared `tokens_per_sample` always counts more."""


def tokens_per_sample(
    datasets: Sequence[Dataset], *, sequence_length: int | None = None, samples_of_each: Sequence[int] | None = None
) -> Fraction | None:
    """The mean tokens of a sample, exactly: the sequence length of a batch in tokens, else over all datasets.

    `samples_of_each` says in which proportion the datasets are drawn (default: by their sizes). None where nothing
    says.
    """
    if sequence_length is not None:
        return Fraction(sequence_length)
    if tokens_per_epoch(datasets) is None:
        return None
    drawn = samples_of_each or [dataset.num_samples for dataset in datasets]
    means = (Fraction(tokens_in(dataset) or 0, dataset.num_samples) for dataset in datasets)
    return Fraction(sum(number * mean for number, mean in zip(drawn, means, strict=True)) / sum(drawn))


def tokens_per_epoch(datasets: Sequence[Dataset]) -> int | None:
    """Tokens in one pass over all datasets, rounded up for each; None as soon as one of them declares nothing."""
    counts = [tokens_in(dataset) for dataset in datasets]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def tokens_in(dataset: Dataset) -> int | None:
    """Tokens in one pass over `dataset`; None where it declares neither tokens nor characters."""
    if dataset.tokens_per_sample is not None:
        return dataset.num_samples * dataset.tokens_per_sample
    if dataset.chars_per_sample is not None:
        return -(-dataset.num_samples * dataset.chars_per_sample // CHARS_PER_TOKEN)
    return None


def is_estimated(dataset: Dataset, *, sequence_length: int | None = None) -> bool:
    """Whether its tokens are counted by the four-characters rule."""
    declared = sequence_length is not None or dataset.tokens_per_sample is not None
    return not declared and dataset.chars_per_sample is not None
