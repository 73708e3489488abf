"""The global order is a pure function of (seed, names, sizes): every epoch is a permutation, on any machine."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan.mixture import order_of


@given(st.integers(min_value=1, max_value=500), st.integers(min_value=0, max_value=2**63 - 1))
@settings(max_examples=50)
def test_each_epoch_holds_each_sample_exactly_once(num_samples: int, seed: int) -> None:
    order = order_of(seed, [("a", num_samples)])
    for epoch in range(3):
        ids = order.ids(range(epoch * num_samples, (epoch + 1) * num_samples))
        assert sorted(ids) == list(range(num_samples))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    order = order_of(0, [("a", 1000)])
    assert order.ids(range(1000)) != order.ids(range(1000, 2000))
    assert order.ids(range(1000)) != order_of(1, [("a", 1000)]).ids(range(1000))


def test_the_order_is_pinned_so_that_old_checkpoints_resume_on_new_machines() -> None:
    assert order_of(7, [("a", 6), ("b", 4)]).ids(range(12)) == PINNED


def test_a_window_may_run_across_the_end_of_an_epoch() -> None:
    order = order_of(3, [("a", 10)])
    assert order.ids(range(8, 12)) == order.ids(range(8, 10)) + order.ids(range(10, 12))


def test_the_digest_changes_with_whatever_would_change_the_order() -> None:
    orders = [(0, [("a", 5)]), (1, [("a", 5)]), (0, [("b", 5)]), (0, [("a", 6)]), (0, [("a", 5), ("b", 1)])]
    digests = {order_of(seed, datasets).digest() for seed, datasets in orders}
    assert len(digests) == 5


PINNED = [8, 4, 1, 6, 3, 2, 7, 5, 9, 0, 3, 9]
