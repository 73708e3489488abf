"""The global order is a pure function of (seed, names, sizes): every epoch is a permutation, on any machine."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan.mixture import SampleOrder, order_of
from orchestrator.plan.shares import MixturePlan, Share


@given(st.integers(min_value=1, max_value=500), st.integers(min_value=0, max_value=2**63 - 1))
@settings(max_examples=50, deadline=None)
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


def mixed(*wanted: tuple[str, int, int], seed: int = 3, exhaustion: str = "repeat") -> SampleOrder:
    """The order over a mixture of (name, size, share)."""
    shares = tuple(Share(*each) for each in wanted)
    return SampleOrder(seed, MixturePlan("weights", exhaustion, shares), sum(size for _, size, _ in wanted))


def test_in_a_mixture_each_pass_over_a_dataset_holds_each_of_its_samples_once() -> None:
    order = mixed(("a", 50, 5), ("b", 20, 2), ("c", 3, 1))
    ids, passes = order.draws(range(4000))
    for first, size, share in ((0, 50, 5), (50, 20, 2), (70, 3, 1)):
        own = (first <= ids) & (ids < first + size)
        assert own.sum() == 4000 * share // 8
        drawn, numbers = ids[own], passes[own]
        assert (numbers == np.arange(len(drawn)) // size).all()
        for number in range(len(drawn) // size):
            assert sorted(drawn[numbers == number]) == list(range(first, first + size))
        assert drawn[:size].tolist() != drawn[size : 2 * size].tolist() or size < 5


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), min_size=1, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_a_mixture_may_be_entered_anywhere(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    """What stands at a position does not hang on what was asked for before, nor on how much is asked for at once."""
    exhaustion = data.draw(st.sampled_from(["repeat", "drop"]))
    wanted = [(f"d{number}", *each) for number, each in enumerate(sizes)]
    whole, passes = mixed(*wanted, exhaustion=exhaustion).draws(range(20_000))
    entered = mixed(*wanted, exhaustion=exhaustion)
    for start in data.draw(st.lists(st.integers(0, 19_000), min_size=1, max_size=5)):
        length = data.draw(st.integers(1, 900))
        found = entered.draws(range(start, start + length))
        assert (found[0] == whole[start : start + length]).all() and (found[1] == passes[start : start + length]).all()


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 30)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_where_datasets_are_dropped_every_epoch_holds_every_sample_once(sizes: list[tuple[int, int]]) -> None:
    order = mixed(*[(f"d{number}", *each) for number, each in enumerate(sizes)], exhaustion="drop")
    total = sum(size for size, _ in sizes)
    ids, passes = order.draws(range(3 * total))
    for epoch in range(3):
        assert sorted(ids[epoch * total : (epoch + 1) * total]) == list(range(total))
        assert set(passes[epoch * total : (epoch + 1) * total]) == {epoch}


def test_a_dropped_datasets_share_goes_to_the_others_in_proportion() -> None:
    order = mixed(("a", 600, 4), ("b", 300, 2), ("c", 10, 4), exhaustion="drop")
    ids, _ = order.draws(range(910))
    assert (ids[:25] >= 900).sum() == 10
    after = ids[26:626]
    assert abs((after < 600).sum() - 400) <= 1


def test_the_order_of_a_mixture_is_pinned_too() -> None:
    assert mixed(("a", 6, 2), ("b", 4, 1), seed=7).ids(range(12)) == PINNED_MIXTURE


def test_an_iterable_dataset_keeps_its_own_order() -> None:
    shares = (Share("stream", 4, 1, iterable=True), Share("map", 5, 1))
    order = SampleOrder(0, MixturePlan("round_robin", "repeat", shares), 9)
    assert [sample for sample in order.ids(range(16)) if sample < 4] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_what_the_order_depends_on_is_told_in_plain_words() -> None:
    assert mixed(("a", 6, 2), ("b", 4, 1), seed=7).describe() == {
        "seed": 7,
        "strategy": "weights",
        "exhaustion": "repeat",
        "datasets": {
            "a": {"num_samples": 6, "share": 2},
            "b": {"num_samples": 4, "share": 1},
        },
    }
    assert order_of(7, [("a", 6)]).describe()["datasets"] == {"a": {"num_samples": 6}}
    one = ("a", 6, 2), ("b", 4, 1)
    others = [mixed(*one), mixed(*reversed(one)), mixed(("a", 6, 1), ("b", 4, 1)), mixed(*one, exhaustion="drop")]
    assert len({order.digest() for order in others}) == 4


PINNED_MIXTURE = [4, 6, 1, 2, 9, 5, 3, 7, 0, 4, 8, 3]
