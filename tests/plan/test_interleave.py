"""Whose turn it is: no prefix of the order is a whole sample away from any dataset's share, however many there are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan.interleave import interleaved

SHARES = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 2000)), min_size=1, max_size=40)


@given(SHARES)
@settings(max_examples=100, deadline=None)
def test_every_prefix_is_within_one_sample_of_every_share_and_a_period_is_exact(shares: list[int]) -> None:
    """The bound is Tijdeman's, 1 - 1 / (2K - 2), checked in integers; it is below one for any number of datasets."""
    pattern, period = interleaved(tuple(shares)), sum(shares)
    turns = np.arange(1, period + 1)
    parts = max(2, 2 * len(shares) - 2)
    for index, share in enumerate(shares):
        taken = np.cumsum(pattern == index)
        assert np.abs(taken * period - turns * share).max() * parts <= (parts - 1) * period
        assert taken[-1] == share


def test_the_pattern_is_pinned_so_that_old_checkpoints_resume_on_new_machines() -> None:
    assert "".join("abc"[turn] for turn in interleaved((5, 2, 1))) == PINNED
    assert interleaved((1, 1, 1)).tolist() == [0, 1, 2]


PINNED = "aabacaab"
