"""What comes of a window whose loss is no number, by the recipe's policy."""

from __future__ import annotations

import math

import pytest

from orchestrator.recipe.schema import NonFinite
from orchestrator.worker.nonfinite import decide, is_passed_over

NAN, INF = math.nan, math.inf
SKIP, ROLL_BACK = NonFinite(action="skip", budget=2), NonFinite(action="roll_back", budget=2)


@pytest.mark.parametrize(
    ("policy", "loss", "grad_norm", "before", "action", "after"),
    [
        pytest.param(SKIP, 0.5, 1.0, (), "update", (), id="finite"),
        pytest.param(SKIP, 0.5, None, (16,), "update", (16,), id="finite after a skip"),
        pytest.param(None, NAN, 1.0, (), "stop", (), id="stop is the default"),
        pytest.param(NonFinite(action="stop"), INF, 1.0, (), "stop", (), id="stop"),
        pytest.param(SKIP, NAN, 1.0, (), "skip", (64,), id="skip"),
        pytest.param(SKIP, 0.5, INF, (16,), "skip", (16, 64), id="a gradient counts too"),
        pytest.param(SKIP, -INF, 1.0, (16, 32), "stop", (16, 32), id="the budget is used up"),
        pytest.param(ROLL_BACK, NAN, 1.0, (16,), "roll_back", (16, 64), id="roll back"),
        pytest.param(ROLL_BACK, NAN, 1.0, (16, 32), "stop", (16, 32), id="a roll-back has a budget too"),
    ],
)
def test_a_window_that_is_no_number_is_decided_by_the_recipe(
    policy: NonFinite | None, loss: float, grad_norm: float | None, before: tuple[int, ...], action: str, after: tuple
) -> None:
    found = decide(policy, window_start=64, loss=loss, grad_norm=grad_norm, passed_over=before)
    assert (found.action, found.passed_over) == (action, after)
    assert bool(found.why) == (action != "update")


def test_the_steps_that_a_grad_scaler_skips_are_its_own_affair() -> None:
    """In fp16 an infinite gradient lowers the scale; only a loss that is no number is ours."""
    assert decide(SKIP, window_start=0, loss=0.5, grad_norm=None, passed_over=()).action == "update"
    assert decide(SKIP, window_start=0, loss=NAN, grad_norm=None, passed_over=()).action == "skip"


def test_a_roll_back_without_a_checkpoint_skips() -> None:
    found = decide(ROLL_BACK, window_start=0, loss=NAN, grad_norm=1.0, passed_over=(), has_checkpoint=False)
    assert found.action == "skip" and is_passed_over(0, found.passed_over) and not is_passed_over(16, (0,))


def test_a_stop_says_which_budget_was_used_up() -> None:
    found = decide(SKIP, window_start=64, loss=NAN, grad_norm=1.0, passed_over=(16, 32))
    assert found.why == (
        "the training loss is nan, and 2 windows have been passed over already (on_non_finite_loss.budget)"
    )
