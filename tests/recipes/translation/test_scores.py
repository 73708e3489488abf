"""What a translation's score is made of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scores import FLOOR, Scoring

IS_TOKEN = torch.tensor([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("length", "alpha", "penalty"),
    [
        (1, 0.3, 1.0),
        (5, 0.6, 1.358655),
        (10, 0.6, 1.732862),
        (20, 0.6, 2.354362),
        (50, 0.6, 3.778565),
        (10, 0.2, 1.201124),
        (20, 0.7, 2.715515),
        (20, 1.0, 4.166667),
    ],
)
def test_the_length_penalty_of_gnmt_has_its_published_values(length: int, alpha: float, penalty: float) -> None:
    assert Scoring("gnmt", alpha).length_penalty(length) == pytest.approx(penalty, abs=5e-7)


def test_the_older_length_penalty_is_a_power_and_none_is_none() -> None:
    assert Scoring("power", 0.7).length_penalty(20) == pytest.approx(20**0.7)
    assert Scoring("power", 0.0).length_penalty(20) == Scoring().length_penalty(20) == 1.0
    assert Scoring("gnmt", 1.0).score(-8.0, 7, -0.5) == pytest.approx(-8.0 / 2 - 0.5)


def test_coverage_is_of_tokens_alone_and_has_no_logarithm_of_zero() -> None:
    attention = torch.tensor([[0.5, 2.0, 0.0], [0.25, 1.0, 0.0]], dtype=torch.float64)
    found = Scoring(beta=0.2).coverage_penalty(attention, IS_TOKEN)
    expected = [0.2 * (math.log(0.5 + FLOOR) + math.log(FLOOR)), 0.2 * math.log(0.25 + FLOOR)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert Scoring().coverage_penalty(attention, IS_TOKEN).tolist() == [0.0, 0.0]


def test_gamma_makes_an_early_end_dear_and_a_late_one_cheap_and_is_off_at_zero() -> None:
    lengths = torch.tensor([6.0, 3.0])
    assert Scoring(gamma=1.0).end_weight(lengths, 3).tolist() == [2.0, 1.0]
    assert Scoring(gamma=0.5).end_weight(lengths, 6).tolist() == [0.5, 0.25]
    assert Scoring().end_weight(lengths, 3) == 1.0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"alpha": 0.6}, "alpha is 0.6, and lengths do not count: write length power or gnmt"),
        ({"length": "gnmt", "alpha": -1.0}, "alpha is -1.0: write a number from 0 on"),
        ({"beta": math.nan}, "beta is nan: write a number from 0 on"),
        ({"gamma": math.inf}, "gamma is inf: write a number from 0 on"),
        ({"length": "wu"}, "length is 'wu': write none, power or gnmt"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="^" + told + "$"):
        Scoring(**wrong)
