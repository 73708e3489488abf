"""Which precisions are tried, and which gradients let one be: tables."""

from __future__ import annotations

import math

import pytest

from orchestrator.tuning.amp_law import CPU, NOT_COMPUTED, Agreement, is_scale_lost, ladder, precision_text, refusal


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        pytest.param(CPU, ("bf16",), id="a CPU, where it is tried and measured"),
        pytest.param(61, (), id="Pascal has no tensor cores"),
        pytest.param(70, ("fp16",), id="V100: its bf16 is emulated"),
        pytest.param(75, ("fp16",), id="T4: so is its"),
        pytest.param(80, ("tf32", "bf16"), id="A100"),
        pytest.param(90, ("tf32", "bf16"), id="H100"),
        pytest.param(120, ("tf32", "bf16"), id="Blackwell"),
    ],
)
def test_the_mildest_precision_that_a_device_has_is_tried_first(capability: int, expected: tuple[str, ...]) -> None:
    assert ladder(capability) == expected


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [
        pytest.param(Agreement(), None, id="the same"),
        pytest.param(Agreement(0.009, 0.991, 1.09), None, id="within all bounds"),
        pytest.param(
            Agreement(0.0, 0.989, 1.0),
            "the gradient of head is another one: cosine 0.989 and 1.00 x the norm, for the same samples",
            id="another direction",
        ),
        pytest.param(
            Agreement(0.0, 1.0, 0.85),
            "the gradient of head is another one: cosine 1.000 and 0.85 x the norm, for the same samples",
            id="another length",
        ),
        pytest.param(
            Agreement(0.013, 1.0, 1.0), "the loss of the same samples differs by 1.3%", id="another loss alone"
        ),
        pytest.param(Agreement(0.0, math.nan, 1.0), "loss or gradient is no number, in head", id="a gradient of NaN"),
        pytest.param(Agreement(math.nan), "loss or gradient is no number, in head", id="a loss of NaN"),
        pytest.param(Agreement(math.inf), "loss or gradient is no number, in head", id="a loss that is infinite"),
        pytest.param(NOT_COMPUTED, "it could not be computed: a rank's log says why", id="an error"),
    ],
)
def test_a_precision_is_refused_by_what_the_gradients_show(agreement: Agreement, expected: str | None) -> None:
    assert refusal(agreement, "head") == expected


def test_the_worst_of_all_ranks_is_what_is_no_number_then_what_is_farthest_beyond_its_bound() -> None:
    ranks = [Agreement(0.005), Agreement(0.0, 0.5), Agreement(0.0, 1.0, 1.2)]
    assert max(ranks, key=lambda one: one.badness) == Agreement(0.0, 0.5)
    assert max([*ranks, Agreement(math.nan)], key=lambda one: one.badness).badness == math.inf


def test_a_loss_scale_below_one_scales_nothing() -> None:
    assert is_scale_lost(0.5) and not is_scale_lost(1.0)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"kept": "bf16", "gain": 0.77, "step_s": 0.01}, "bf16 makes steps 77% faster: kept"),
        ({"from": "fp32", "to": "bf16", "why": "its gradient", "refused": True}, "bf16 is refused: its gradient"),
        ({"from": "fp32", "to": "bf16", "why": "no wait", "applied": False}, "try precision: bf16: no wait"),
        ({"from": "fp32", "to": "bf16", "why": "they agree", "applied": True}, "precision fp32 -> bf16: they agree"),
        ({"from": "bf16", "to": "fp32", "why": "NaN", "reverted": True}, "precision bf16 -> fp32: NaN"),
    ],
)
def test_what_became_of_a_precision_is_told_in_a_line(detail: dict[str, object], expected: str) -> None:
    assert precision_text(detail) == expected
