"""How long is too long: learnt bounds, and silence of all."""

from __future__ import annotations

import math

import pytest

from orchestrator.node.patience import UNKNOWN_S, bound_s, silences
from orchestrator.pulse import Phase, Sign


def sign(phase: Phase, *, at_s: float = 0.0, **longest_s: float) -> Sign:
    """A rank's last sign; `step=2.0` says that a step was silent for 2 s at most so far."""
    return Sign(1, phase, 7, 0, at_s, tuple(longest_s.get(one.word, 0.0) for one in Phase))


@pytest.mark.parametrize(
    ("last", "floor_s", "expected_s"),
    [
        pytest.param(sign(Phase.START), 60, UNKNOWN_S, id="the start has its time"),
        pytest.param(sign(Phase.START, start=2.0), 60, UNKNOWN_S, id="again, too: a later first step may load more"),
        pytest.param(sign(Phase.START), 3600, 3600, id="a recipe may give the start more"),
        pytest.param(sign(Phase.PREFLIGHT, start=40.0), 60, 60, id="a part of the preflight takes a second or two"),
        pytest.param(sign(Phase.STEP, start=40.0), 60, UNKNOWN_S, id="the second step is the first one to learn from"),
        pytest.param(sign(Phase.STEP, step=20.0), 60, 200, id="ten times the longest step"),
        pytest.param(sign(Phase.STEP, step=0.01), 60, 60, id="but never less than the recipe says"),
        pytest.param(sign(Phase.STEP, step=0.01, start=90.0), 60, 90, id="a step may compile what the first one did"),
        pytest.param(sign(Phase.STEP, step=0.01, checkpoint=90.0), 60, 60, id="each phase by itself"),
        pytest.param(sign(Phase.EVALUATION, step=0.01), 60, UNKNOWN_S, id="the first evaluation"),
        pytest.param(sign(Phase.EVALUATION, evaluation=30.0), 60, 300, id="a later one"),
        pytest.param(sign(Phase.CHECKPOINT, step=0.01), 60, UNKNOWN_S, id="the first checkpoint"),
        pytest.param(sign(Phase.CHECKPOINT, checkpoint=200.0), 60, 2000, id="a later one, on a slow file system"),
        pytest.param(sign(Phase.END, step=0.01), 60, UNKNOWN_S, id="the end"),
        pytest.param(sign(Phase.REST), 60, math.inf, id="what nobody knows the length of"),
    ],
)
def test_a_silence_is_too_long_by_what_was_seen_before(last: Sign, floor_s: float, expected_s: float) -> None:
    assert bound_s(last, floor_s=floor_s) == expected_s


STEP, SAVING = sign(Phase.STEP, at_s=100.0, step=0.01), sign(Phase.CHECKPOINT, at_s=100.0, checkpoint=30.0)


@pytest.mark.parametrize(
    ("signs", "now_s", "awake_since_s", "expected"),
    [
        pytest.param({0: STEP, 1: STEP}, 159.0, 0.0, {}, id="nobody is over"),
        pytest.param({0: STEP, 1: STEP}, 161.0, 0.0, {0: 61.0, 1: 61.0}, id="everybody is"),
        pytest.param({0: SAVING, 1: STEP}, 399.0, 0.0, {}, id="rank 1 waits for a checkpoint that may take its time"),
        pytest.param({0: SAVING, 1: STEP}, 401.0, 0.0, {0: 301.0, 1: 301.0}, id="until it is over, too"),
        pytest.param({0: STEP, 1: STEP}, 4000.0, 3990.0, {}, id="the machine was stopped meanwhile"),
        pytest.param({0: STEP}, 4000.0, 3930.0, {0: 70.0}, id="and is silent since it goes on"),
        pytest.param({}, 4000.0, 0.0, {}, id="a command that gives no signs"),
    ],
)
def test_a_hang_is_when_everybody_is_silent_for_too_long(
    signs: dict[int, Sign], now_s: float, awake_since_s: float, expected: dict[int, float]
) -> None:
    assert silences(signs, now_s=now_s, awake_since_s=awake_since_s, floor_s=60) == expected
