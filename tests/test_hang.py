"""Which of several ranks hung first: the others wait for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.hang import Hang, first_to_hang

WAITS = Hang(0, "step", 61.0, step=7, num_backward=1, since=1000.0)


@pytest.mark.parametrize(
    "hung",
    [
        pytest.param(replace(WAITS, rank=3, is_held=True, step=8, since=1001.0), id="one that is stopped"),
        pytest.param(replace(WAITS, rank=3, step=6, since=1001.0), id="one that is a step behind"),
        pytest.param(replace(WAITS, rank=3, phase="checkpoint", since=1001.0), id="one that still saves that step"),
        pytest.param(
            replace(WAITS, rank=3, num_backward=0, since=1001.0), id="one that has no gradients to exchange yet"
        ),
        pytest.param(replace(WAITS, rank=3, since=999.0), id="else the one that fell silent first"),
        pytest.param(replace(WAITS, rank=-1), id="else the lowest, so that all who look agree"),
    ],
)
def test_the_rank_that_all_wait_for_is_found(hung: Hang) -> None:
    others = tuple(replace(WAITS, rank=rank) for rank in range(3))
    assert first_to_hang((*others, hung)) == hung == first_to_hang((hung, *others))


def test_a_hang_survives_its_file() -> None:
    assert Hang(**WAITS.as_json()) == WAITS
