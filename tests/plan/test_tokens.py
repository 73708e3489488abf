"""Tokens are counted as declared, estimated at four characters each, and never invented."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from orchestrator.plan.tokens import is_estimated, tokens_per_epoch, tokens_per_sample
from orchestrator.recipe.data import Dataset


def dataset(**sizes: Any) -> Dataset:
    return Dataset(name="a", target="data:a", **sizes)


@pytest.mark.parametrize(
    ("sizes", "tokens"),
    [
        ([{"num_samples": 10, "tokens_per_sample": 7}], 70),
        ([{"num_samples": 10, "chars_per_sample": 30}], 75),
        ([{"num_samples": 3, "chars_per_sample": 3}], 3),
        ([{"num_samples": 10, "tokens_per_sample": 7, "chars_per_sample": 4000}], 70),
        ([{"num_samples": 10, "tokens_per_sample": 7}, {"num_samples": 4, "chars_per_sample": 8}], 78),
        ([{"num_samples": 10, "tokens_per_sample": 7}, {"num_samples": 4}], None),
        ([], None),
    ],
)
def test_tokens_of_an_epoch(sizes: list[dict[str, int]], tokens: int | None) -> None:
    assert tokens_per_epoch([dataset(**size) for size in sizes]) == tokens


def test_the_mean_tokens_of_a_sample_are_exact_and_a_sequence_length_settles_them() -> None:
    two = [dataset(num_samples=2, tokens_per_sample=5), dataset(num_samples=1, chars_per_sample=12)]
    assert tokens_per_sample(two) == Fraction(13, 3)
    assert tokens_per_sample(two, sequence_length=512) == 512
    assert tokens_per_sample([], sequence_length=512) == 512
    assert tokens_per_sample([]) is None
    assert [is_estimated(one) for one in two] == [False, True]
    assert not is_estimated(two[1], sequence_length=512)
