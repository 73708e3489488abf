"""The largest micro-batch: found by following a line, tried on both sides; peaks between and beyond the points."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.errors import RecipeError
from orchestrator.plan.budget import budget_of
from orchestrator.plan.fit import (
    FitRow,
    ModelSizes,
    OneIsTooFew,
    arithmetic_curve,
    find_largest,
    fit_rows,
    state_copies_of,
)
from orchestrator.plan.memory import MemoryPlan, PeakCurve
from orchestrator.plan.plan import make_plan, plan_from_json, plan_to_json
from orchestrator.units import GIB
from tests.plan.test_plan import recipe

LINES = st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 10**9)), min_size=1, max_size=4)


def memory(*, single: int, accumulating: int) -> MemoryPlan:
    """A prediction of 1 GiB and 1 GiB per sample, and one more where gradients accumulate."""
    curves = [PeakCurve.through({1: fixed + GIB, 2: fixed + 2 * GIB}, step_bytes=GIB) for fixed in (GIB, 2 * GIB)]
    return MemoryPlan("simulated", 80 * GIB, 70 * GIB, accumulating, single, curves[1], curves[0])


@given(LINES, st.integers(0, 10**11), st.integers(1, 100_000))
def test_the_search_ends_at_the_largest_that_fits_for_any_chain_of_rising_lines(
    lines: list[tuple[int, int]], budget_bytes: int, most: int
) -> None:
    def peak(size: int) -> int:
        return max(fixed + slope * size for fixed, slope in lines)

    largest, peaks = find_largest(peak, budget_bytes=budget_bytes, most=most)
    assert largest == 0 or peaks[largest] <= budget_bytes
    assert largest == most or peaks[largest + 1] > budget_bytes


def test_of_a_straight_line_four_peaks_are_enough_and_with_a_guess_two() -> None:
    tried: list[int] = []

    def peak(size: int) -> int:
        tried.append(size)
        return 1000 + 10 * size

    assert find_largest(peak, budget_bytes=1415, most=10**6)[0] == 41
    assert tried == [2, 16, 41, 42]
    tried.clear()
    guess = PeakCurve.through({2: 1020, 16: 1160}, step_bytes=0)
    assert find_largest(peak, budget_bytes=1415, most=10**6, guess=guess)[0] == 41
    assert tried == [41, 42]


def test_the_whole_batch_is_never_passed() -> None:
    assert find_largest(lambda size: size, budget_bytes=10**9, most=24) == (24, {2: 2, 16: 16, 24: 24})
    assert find_largest(lambda size: size, budget_bytes=10**9, most=1) == (1, {1: 1})


def from_two_on(size: int) -> int | None:
    """As of a model with a batch norm, which cannot train on one sample alone."""
    return None if size == 1 else 10 * size


def test_where_one_sample_alone_cannot_be_trained_on_the_search_ends_at_two() -> None:
    assert find_largest(from_two_on, budget_bytes=19, most=64)[0] == 0
    assert find_largest(from_two_on, budget_bytes=20, most=64)[0] == 2
    assert find_largest(from_two_on, budget_bytes=39, most=3)[0] == 3
    guess = PeakCurve.through({1: 30, 2: 40}, step_bytes=0)
    assert find_largest(from_two_on, budget_bytes=25, most=64, guess=guess)[0] == 2
    assert find_largest(from_two_on, budget_bytes=15, most=64, guess=guess) == (0, {2: 20})
    with pytest.raises(OneIsTooFew):
        find_largest(from_two_on, budget_bytes=100, most=1)


@pytest.mark.parametrize(("budget_bytes", "most", "largest"), [(100, 2, 2), (15, 64, 0), (35, 64, 3)])
def test_rows_of_a_model_that_needs_two_samples_are_verified(budget_bytes: int, most: int, largest: int) -> None:
    found = fit_rows(
        lambda size, accumulating: from_two_on(size),
        recompute=False,
        step_bytes=0,
        gradient_bytes=0,
        budget_bytes=budget_bytes,
        most=most,
    )
    assert [(row.largest_micro_batch, row.verified) for row in found] == [(largest, True)] * 2


def rows(*, step_bytes: int = 0, budget_bytes: int = 100) -> tuple[FitRow, FitRow]:
    return fit_rows(
        lambda size, accumulating: 10 * size + 7 * accumulating,
        recompute=False,
        step_bytes=step_bytes,
        gradient_bytes=7,
        budget_bytes=budget_bytes,
        most=1000,
    )


def test_with_and_without_accumulation_are_two_rows_each_verified() -> None:
    single, accumulating = rows()
    assert (single.largest_micro_batch, accumulating.largest_micro_batch) == (10, 9)
    assert single.verified and accumulating.verified
    assert {single.decided_by, accumulating.decided_by} == {"forward and backward"}


@pytest.mark.parametrize("most", [50_000, 10**12])
def test_a_loss_that_is_quadratic_in_the_batch_never_fits_better_beside_kept_gradients(most: int) -> None:
    single, accumulating = fit_rows(
        lambda size, accumulating: 5_000 + 300 * size + 12 * size**2 + 4_352 * accumulating,
        recompute=False,
        step_bytes=0,
        gradient_bytes=4_352,
        budget_bytes=380_000_000,
        most=most,
    )
    assert 0 < accumulating.largest_micro_batch <= single.largest_micro_batch
    assert single.verified and accumulating.verified


def test_where_a_search_finds_no_end_more_to_hold_never_makes_more_fit() -> None:
    single, accumulating = fit_rows(
        lambda size, accumulating: 10 + size**3 + 7 * accumulating,
        recompute=False,
        step_bytes=0,
        gradient_bytes=7,
        budget_bytes=10**9 + 510,
        most=100_000,
    )
    assert accumulating.largest_micro_batch <= single.largest_micro_batch


def test_an_optimizer_step_that_does_not_fit_leaves_nothing_and_decides() -> None:
    single, _ = rows(step_bytes=101)
    assert (single.largest_micro_batch, single.decided_by) == (0, "optimizer step")
    assert rows(budget_bytes=9)[0].largest_micro_batch == 0


def test_between_the_points_a_peak_lies_on_the_line_and_never_below_the_optimizer_step() -> None:
    curve = PeakCurve.through({2: 120, 4: 140, 10: 320}, step_bytes=125)
    assert [curve.peak_bytes(size) for size in (1, 2, 3, 4, 5, 10, 11)] == [125, 125, 130, 140, 170, 320, 350]
    assert curve.line_at(3) == (100, 10) and curve.line_at(11) == (20, 30)
    assert curve.largest_within(319, most=100) == 9
    assert curve.largest_within(124, most=100) == 0


def test_a_rank_that_takes_its_share_at_once_may_take_more() -> None:
    predicted = memory(single=8, accumulating=7)
    assert [predicted.limit(samples) for samples in (1, 8, 9, 64)] == [8, 8, 7, 7]
    assert predicted.predicted_peak_bytes(4, accumulating=False) == 5 * GIB
    assert predicted.predicted_peak_bytes(4, accumulating=True) == 6 * GIB


def test_a_plan_takes_the_predicted_micro_batch_and_keeps_the_prediction_through_json() -> None:
    auto = recipe(batch={"effective": 64, "micro": "auto"})
    plan = make_plan(auto, LOCAL, Allocation(2, 4), memory=memory(single=8, accumulating=7))
    assert (plan.batch.micro_batch_size, plan.batch.gradient_accumulation_steps) == (8, 1)
    small = make_plan(auto, LOCAL, Allocation(1, 1), memory=memory(single=8, accumulating=7))
    assert (small.batch.micro_batch_size, small.batch.gradient_accumulation_steps) == (7, 10)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_where_not_one_sample_fits_there_is_no_plan() -> None:
    auto = recipe(batch={"effective": 64, "micro": "auto"})
    with pytest.raises(RecipeError, match="not one sample fits"):
        make_plan(auto, LOCAL, Allocation(1, 1), memory=memory(single=0, accumulating=0))


def test_every_byte_of_the_gpu_is_accounted_for_and_arithmetic_leaves_a_wider_margin() -> None:
    simulated = budget_of(80 * GIB, accelerator="cuda", method="simulated")
    kept = sum(allowance.num_bytes for allowance in simulated.allowances)
    assert simulated.tensor_bytes + simulated.margin_bytes + kept == 80 * GIB
    assert simulated.tensor_bytes / GIB == pytest.approx(72.82, abs=0.01)
    assert all(allowance.reason for allowance in simulated.allowances)
    arithmetic = budget_of(80 * GIB, accelerator="cuda", method="arithmetic")
    assert arithmetic.margin_bytes > 3 * simulated.margin_bytes
    cpu = budget_of(80 * GIB, accelerator="cpu", method="simulated")
    assert cpu.tensor_bytes > simulated.tensor_bytes


def test_arithmetic_counts_weights_gradients_optimizer_state_and_activations() -> None:
    sizes = ModelSizes(parameter_bytes=100, trained_bytes=80, buffer_bytes=10, activation_bytes=5)
    copies = state_copies_of("adamw", momentum=0.0)
    single, accumulating = (arithmetic_curve(sizes, state_copies=copies, accumulating=on) for on in (False, True))
    assert single.line_at(1) == (100 + 10 + 3 * 80, 5)
    assert accumulating.line_at(1) == (100 + 10 + 4 * 80, 5)
    assert single.step_bytes == 100 + 10 + 4 * 80


@pytest.mark.parametrize(
    ("name", "momentum", "copies"), [("sgd", 0.0, 0), ("sgd", 0.9, 1), ("lars", 0.0, 1), ("rmsprop", 0.9, 2),
                                     ("adafactor", 0.0, 1), ("lamb", 0.0, 2), ("other", 0.0, 2)]
)  # fmt: skip
def test_the_state_of_an_optimizer_in_copies_of_the_weights(name: str, momentum: float, copies: int) -> None:
    assert state_copies_of(name, momentum=momentum) == copies
