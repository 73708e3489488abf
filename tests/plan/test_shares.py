"""Shares are integers: what was written, exactly, where that is possible, and never decided by a float."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.render.plan import plan_screen
from orchestrator.cluster import LOCAL, Allocation
from orchestrator.errors import RecipeError
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.shares import PARTS, integer_shares, plan_mixture
from orchestrator.run_dir import RunDir
from tests.plan.recipes import recipe

SIZES = {"large": 55_000, "middle": 4000, "small": 300}


def datasets(**more: Any) -> list[dict[str, Any]]:
    """Three datasets; each of `more` holds a value for each of them."""
    return [
        {"name": name, "target": "d:a", "num_samples": size, **{key: values[place] for key, values in more.items()}}
        for place, (name, size) in enumerate(SIZES.items())
    ]


def planned(strategy: str, *, duration: Any = None, told: dict[str, Any] | None = None, **mixture: Any) -> Plan:
    """A plan of the three datasets, or of those in `told`, mixed."""
    wanted = recipe(
        datasets=datasets(**(told or {})),
        mixture={"strategy": strategy, **mixture},
        duration=duration or {"epochs": 2},
        schedule={},
    )
    return make_plan(wanted, LOCAL, Allocation(1, 1))


def shares(plan: Plan) -> list[int]:
    assert plan.mixture is not None
    return [share.share for share in plan.mixture.shares]


def test_written_weights_are_shares_exactly() -> None:
    assert shares(planned("weights", told={"weight": [0.7, 0.25, 0.05]})) == [14, 5, 1]
    assert shares(planned("weights", told={"weight": [3, 2, 1.5]})) == [6, 4, 3]
    assert shares(planned("round_robin")) == [1, 1, 1]


def test_temperature_goes_by_a_root_of_the_size() -> None:
    by_size, tempered, equal = (shares(planned("temperature", temperature=t)) for t in (1, 3, 1e9))
    assert by_size == [550, 40, 3]
    roots = [size ** (1 / 3) for size in SIZES.values()]
    assert PARTS % sum(tempered) == 0
    assert [share / sum(tempered) for share in tempered] == pytest.approx(
        [root / sum(roots) for root in roots], abs=1 / PARTS
    )
    assert max(equal) - min(equal) <= 1


def test_shares_of_tokens_are_shares_of_samples_divided_by_their_length() -> None:
    told = {"weight": [0.5, 0.25, 0.25], "tokens_per_sample": [10, 20, 5]}
    plan = planned("weights", told=told, unit="tokens")
    assert shares(plan) == [4, 1, 4]
    tokens = [share * length for share, length in zip(shares(plan), told["tokens_per_sample"], strict=True)]
    assert [Fraction(each, sum(tokens)) for each in tokens] == [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]


@given(st.lists(st.fractions(min_value=Fraction(1, 10**9), max_value=10**9), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_shares_that_cannot_be_exact_are_within_a_part_of_what_was_asked_but_never_nothing(
    wanted: list[Fraction],
) -> None:
    found = integer_shares(wanted)
    assert math.gcd(*found) == 1 and min(found) >= 1 and sum(found) <= PARTS
    whole = [share * Fraction(PARTS, sum(found)) for share in found]
    for share, each in zip(whole, wanted, strict=True):
        quota = each / sum(wanted) * PARTS
        assert share <= max(quota + 1, 1)
        assert share >= quota * (1 - Fraction(len(found), PARTS)) - 1


def test_an_epoch_is_what_the_recipe_says_or_a_pass_over_the_dataset_that_takes_longest() -> None:
    told = {"weight": [14, 5, 1]}
    epochs = [
        planned("weights", told=told, **({"epoch": epoch} if epoch else {})).schedule.samples_per_epoch
        for epoch in (None, {"passes_of": "small"}, {"passes_of": "middle"}, {"samples": 5})
    ]
    assert epochs == [math.ceil(55_000 * 20 / 14), 300 * 20, 4000 * 4, 5]
    assert planned("round_robin", exhaustion="drop").schedule.samples_per_epoch == sum(SIZES.values())


def test_the_plan_says_size_share_and_passes_of_each_dataset(tmp_path: Any) -> None:
    plan = planned("weights", told={"weight": [14, 5, 1]}, epoch={"passes_of": "middle"})
    screen = plan_screen(plan, recipe(), RunDir(tmp_path / "run"), cwd=tmp_path)
    row = next(line for line in screen.splitlines() if line.startswith("data"))
    assert "large 55,000 samples, 70.0% of all, 0.407 passes" in row
    assert "small 300 samples, 5.0% of all, 5.33 passes" in row
    assert row.endswith("weights, repeat; an epoch is 16,000 samples")


def test_repeated_text_is_warned_of_dataset_by_dataset() -> None:
    plan = planned("round_robin", duration={"samples": 9000}, told={"tokens_per_sample": [9, 9, 9]})
    assert [warning.message.split(";")[0] for warning in plan.warnings if warning.code == "W_REPEAT"] == [
        "small is seen 10 times"
    ]


@pytest.mark.parametrize(
    ("strategy", "told", "fix"),
    [
        ("round_robin", "small would be passed over 2 times in 1,800 samples", "at most 900 samples, or write"),
        ("concatenate", "large would be passed over 1.01 times in 60,000 samples", "at most 59,300 samples, or write"),
    ],
)
def test_a_run_that_would_repeat_what_must_not_be_is_refused(strategy: str, told: str, fix: str) -> None:
    samples = {"round_robin": 1800, "concatenate": 60_000}[strategy]
    with pytest.raises(RecipeError) as caught:
        planned(strategy, duration={"samples": samples}, exhaustion="error")
    assert told in str(caught.value) and fix in str(caught.value)
    assert planned(strategy, duration={"samples": 900}, exhaustion="error").schedule.total_samples == 900


def test_a_warm_up_in_epochs_of_a_mixture_must_end_within_the_run() -> None:
    wanted = recipe(
        datasets=datasets(),
        mixture={"strategy": "round_robin"},
        schedule={"warmup": {"epochs": 1}},
        duration={"steps": 2},
    )
    with pytest.raises(RecipeError, match=r"warm-up of 165,000 samples is longer than the duration of 976"):
        make_plan(wanted, LOCAL, Allocation(1, 1))


def test_tokens_are_counted_in_the_proportion_in_which_samples_are_drawn() -> None:
    plan = planned("round_robin", duration={"samples": 3000}, told={"tokens_per_sample": [10, 20, 60]})
    assert plan.total_tokens == 90_000


def test_without_a_mixture_shares_are_sizes() -> None:
    mixture = plan_mixture(recipe(datasets=datasets()).datasets, None)
    assert [share.share for share in mixture.shares] == list(SIZES.values())
    assert planned("concatenate").mixture is None
