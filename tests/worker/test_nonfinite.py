"""What comes of a window whose loss is no number, by the recipe's policy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator.recipe.schema import NonFinite
from orchestrator.run_dir import RunDir
from orchestrator.worker.nonfinite import decide, is_passed_over
from tests.support.worlds import events_of, failure_of, make_run, metrics_of, run_world, sample_ids_of, world_of
from tests.worker.recipes import CODE, POINTS, recipe

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


def torn(folder: Path, world_size: int, **policy: object) -> RunDir:
    """A run over 61 samples of which number 5 is no number: it comes once an epoch, five or six times in all."""
    points = [{"name": "points", "target": "data:OneTorn", "args": {"size": 61}, "num_samples": 61}]
    run = make_run(folder, recipe(POINTS, datasets=points, on_non_finite_loss=policy), CODE)
    run_world(run, world_size)
    return run


def test_a_window_that_is_no_number_is_skipped_on_all_ranks_and_the_weights_stay_good(tmp_path: Path) -> None:
    alone, pair = (torn(tmp_path / str(world), world, action="skip") for world in (1, 2))
    with_it = [step for step, ids in sorted(sample_ids_of(alone).items()) if 5 in ids]
    assert [event["step"] for event in events_of(alone, "passed_over")] == with_it and len(with_it) >= 5
    assert sorted(metrics_of(alone, "train/loss")) == [step for step in range(1, 22) if step not in with_it]
    one, two = metrics_of(alone, "train/loss"), metrics_of(pair, "train/loss")
    assert one.keys() == two.keys()
    assert max(abs(two[step] / one[step] - 1) for step in one) <= 1e-12
    assert sample_ids_of(pair) == sample_ids_of(alone)


def test_after_a_roll_back_the_window_is_passed_over_and_all_others_are_trained_on(tmp_path: Path) -> None:
    """Skipping leaves the weights as they were: so going back and passing over comes to the same loss."""
    skipped, rolled = (torn(tmp_path / action, 2, action=action) for action in ("skip", "roll_back"))
    assert [event["to_step"] for event in events_of(rolled, "rolled_back") if event["from_step"] > 6]
    one, two = metrics_of(skipped, "val/loss"), metrics_of(rolled, "val/loss")
    assert two[21] == pytest.approx(one[21], rel=1e-12)


def test_a_budget_that_is_used_up_ends_the_run_in_one_line(tmp_path: Path) -> None:
    points = [{"name": "points", "target": "data:OneTorn", "args": {"size": 61}, "num_samples": 61}]
    policy = {"action": "skip", "budget": 2}
    run = make_run(tmp_path / "run", recipe(POINTS, datasets=points, on_non_finite_loss=policy), CODE)
    with world_of(run, 1) as world:
        assert world.wait() == [1]
        assert "2 windows have been passed over already" in failure_of(world.attempt)["message"]
