"""The search for the largest micro-batch, whoever measures the peaks, and what `orchestrate fit` reports. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

from orchestrator.plan.budget import Budget
from orchestrator.plan.memory import MemoryPlan, Method, PeakCurve

_FIRST = (2, 16)
"""Where a search begins without a guess: a batch norm cannot train on one sample, and 16 tell a slope."""
_MOST_TRIES = 16


class OneIsTooFew(ValueError):
    """The whole batch is one sample, and one alone cannot be trained on."""


def find_largest(
    peak: Callable[[int], int | None], *, budget_bytes: int, most: int, guess: PeakCurve | None = None
) -> tuple[int, dict[int, int]]:
    """The largest micro-batch up to `most` whose peak is within `budget_bytes`, and all peaks that were asked for.

    Follows the line through the points so far (at first `guess`, else points at 2 and 16), in turns with a parabola
    once there are points on both sides, as of a loss over all pairs of samples, to a candidate M, and ends
    when M has been tried and fits, and M + 1 has been tried and does not (or M is `most`). 0: not even 1 fits, or not
    even 2 where the peak of 1 is None, as one sample alone cannot be trained on. Raises OneIsTooFew where `most` is 1.
    """
    peaks: dict[int, int] = {}
    fits, fails = 0, most + 1
    start = [guess.largest_within(budget_bytes, most=most) or 1] if guess else list(_FIRST)
    while fails - fits > 1 and len(peaks) < _MOST_TRIES:
        wanted = start.pop(0) if start else _candidate(peaks, guess, budget_bytes, most)
        if len(peaks) > _MOST_TRIES // 2:
            wanted = (fits + fails) // 2
        elif fits and fails in peaks and len(peaks) % 2:
            wanted = _by_parabola(peaks, budget_bytes, fits, fails)
        size = min(max(wanted, fits + 1), fails - 1)
        num_bytes = peak(size)
        if num_bytes is None:
            fits = 1  # what fits has to be larger
            continue
        peaks[size] = num_bytes
        if num_bytes <= budget_bytes:
            fits = size
        else:
            fails = size
    if not peaks:
        raise OneIsTooFew("the whole batch is one sample, and one alone cannot be trained on")
    return fits if fits in peaks else 0, peaks


def _candidate(peaks: dict[int, int], guess: PeakCurve | None, budget_bytes: int, most: int) -> int:
    if len(peaks) < 2 and guess:
        return guess.largest_within(budget_bytes, most=most)
    return PeakCurve.through(peaks, step_bytes=0).largest_within(budget_bytes, most=most)


def _by_parabola(peaks: dict[int, int], budget_bytes: int, fits: int, fails: int) -> int:
    """Where the parabola through the three points nearest to the budget leaves it, between `fits` and `fails`."""
    near = sorted(peaks, key=lambda size: abs(peaks[size] - budget_bytes))[:3]

    def height(size: int) -> float:
        terms = (peaks[at] * prod((size - other) / (at - other) for other in near if other != at) for at in near)
        return sum(terms)

    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if height(middle) <= budget_bytes else (fits, middle)
    return fits


@dataclass(frozen=True)
class FitRow:
    """What fits in one mode of training."""

    recompute: bool
    """Activations of blocks are recomputed in the backward pass."""
    accumulating: bool
    """Gradients live from one micro-step to the next."""
    curve: PeakCurve
    largest_micro_batch: int
    capped: bool
    """Larger ones were not looked at: no rank ever needs more samples."""
    fewest: int = 1
    """The smallest micro-batch that can be trained on at all: 2 where one sample alone is refused."""

    @property
    def decided_by(self) -> Literal["forward and backward", "optimizer step"]:
        """The phase with the higher peak at the largest micro-batch (at 1 where none fits)."""
        size = self.largest_micro_batch or 1
        fixed, slope = self.curve.line_at(size)
        return "optimizer step" if self.curve.step_bytes > fixed + slope * size else "forward and backward"

    @property
    def verified(self) -> bool:
        """The largest one was itself looked at, and so was the next one, which does not fit."""
        tried = {point.micro_batch_size for point in self.curve.points}
        size = self.largest_micro_batch
        return (size == 0 or size in tried) and (self.capped or max(size + 1, self.fewest) in tried)


def fit_rows(
    peak: Callable[[int, bool], int | None],
    *,
    recompute: bool,
    step_bytes: int,
    gradient_bytes: int,
    budget_bytes: int,
    most: int,
) -> tuple[FitRow, FitRow]:
    """The rows without and with accumulation; `peak` gives the bytes of (micro-batch, accumulating), as above.

    While gradients accumulate they live beside everything else, so the first row shifted by them is the second's guess.
    """
    rows: list[FitRow] = []
    guess = None
    refused: set[int] = set()
    for accumulating in (False, True):

        def peak_here(size: int, accumulating: bool = accumulating) -> int | None:
            num_bytes = peak(size, accumulating)
            if num_bytes is None:
                refused.add(size)
            return num_bytes

        largest, peaks = find_largest(peak_here, budget_bytes=budget_bytes, most=most, guess=guess)
        if len(peaks) == 1 and most > 1:
            other = 2 if 2 not in peaks else 1
            if (num_bytes := peak_here(other)) is not None:
                peaks[other] = num_bytes
        largest = largest if step_bytes <= budget_bytes else 0
        if rows:  # where a search found no end: with more to hold never more fits
            largest = min(largest, rows[0].largest_micro_batch)
        curve = PeakCurve.through(peaks, step_bytes=step_bytes)
        fewest = 2 if refused else 1
        rows.append(FitRow(recompute, accumulating, curve, largest, capped=largest == most, fewest=fewest))
        shifted = {size: num_bytes + gradient_bytes for size, num_bytes in peaks.items()}
        guess = PeakCurve.through(shifted, step_bytes=0)
    return rows[0], rows[1]


@dataclass(frozen=True)
class ModelSizes:
    """What can be said of a model without running it."""

    parameter_bytes: int
    trained_bytes: int
    """Of the parameters that require gradients."""
    buffer_bytes: int
    activation_bytes: int
    """Per sample, by the first-order rule: what every weight gives out, twice."""


def arithmetic_curve(sizes: ModelSizes, *, state_copies: int, accumulating: bool) -> PeakCurve:
    """A curve without a simulation: weights, gradient buckets and optimizer state, plus activations by sample.

    `state_copies` is the optimizer's state in copies of the trained weights. The step may copy the weights once more.
    """
    held = sizes.parameter_bytes + sizes.buffer_bytes + sizes.trained_bytes * (1 + state_copies)
    living = held + sizes.trained_bytes * accumulating
    points = {1: living + sizes.activation_bytes, 2: living + 2 * sizes.activation_bytes}
    return PeakCurve.through(points, step_bytes=held + sizes.trained_bytes)


def state_copies_of(optimizer: str, *, momentum: float) -> int:
    """How many copies of the trained weights an optimizer's state takes, to first order; unknown ones as Adam."""
    if optimizer in ("sgd", "lars"):
        return int(momentum > 0 or optimizer == "lars")
    return {"rmsprop": 1 + (momentum > 0), "adafactor": 1}.get(optimizer, 2)


@dataclass(frozen=True)
class FitReport:
    """What `orchestrate fit` found, and how."""

    accelerator: Literal["cuda", "cpu"]
    rows: tuple[FitRow, ...]
    budget: Budget
    method: Method
    why: str
    """Why the method is arithmetic."""
    without_recompute: str
    """Why there are no rows with recomputation."""
    alone: str
    """Why one sample alone cannot be trained on; '' where it can, or nobody asked."""
    sample: str
    cpu_s: float
    """CPU seconds of this fit; 0 where all of it was known from an earlier one."""

    def memory_plan(self, *, recompute: bool) -> MemoryPlan:
        """The plan of a recipe that does, or does not, recompute activations."""
        single, accumulating = (row for row in self.rows if row.recompute == recompute)
        return MemoryPlan(
            method=self.method,
            gpu_bytes=self.budget.gpu_bytes,
            budget_bytes=self.budget.tensor_bytes,
            largest_micro_batch=accumulating.largest_micro_batch,
            largest_without_accumulation=single.largest_micro_batch,
            accumulating=accumulating.curve,
            single=single.curve,
            why=self.why,
            fewest=single.fewest,
        )
