"""Windows grouped by length: the same samples, what is computed together about as long."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.batch import window_shares
from orchestrator.plan.mixture import order_of
from orchestrator.worker.windows import Windows, dealt
from tests.support.worlds import failure_of, make_run, metrics_of, run_world, sample_ids_of, world_of
from tests.worker.recipes import CODE, SENTENCES, recipe

LENGTHS = [1 + (7 * i) % 31 for i in range(60)]


def windows(world_size: int, rank: int, *, grouped: bool = True, micro: int | None = 3) -> Windows:
    order = order_of(5, [("text", 60)])
    return Windows(
        order, 100, 16, micro, 1, world_size, rank, (lambda ids: [LENGTHS[i] for i in ids]) if grouped else None
    )


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    world_size=st.integers(1, 5),
    micro=st.none() | st.integers(1, 9),
)
def test_every_sample_is_dealt_once_and_a_micro_step_holds_neighbours_in_length(
    lengths: list[int], world_size: int, micro: int | None
) -> None:
    shares = window_shares(len(lengths), world_size=world_size, largest_micro_batch=micro)
    places = dealt(shares, lengths)
    assert sorted(places) == list(range(len(lengths)))
    ends = list(accumulate((size for sizes in shares for size in sizes), initial=0))
    parts = iter([[lengths[place] for place in places[begin:end]] for begin, end in pairwise(ends)])
    by_rank = [[next(parts) for _ in sizes] for sizes in shares]
    steps = [[length for of_rank in by_rank for length in of_rank[step]] for step in range(len(shares[0]))]
    for shorter, longer in pairwise([step for step in steps if step]):
        assert max(shorter) <= min(longer)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_window_has_the_samples_that_it_has_without_lengths(world_size: int) -> None:
    ranks = range(world_size)
    for start in (0, 16, 48, 96):
        plain = [
            i for rank in ranks for draw in windows(world_size, rank, grouped=False).draws_at(start) for i in draw.ids
        ]
        grouped = [i for rank in ranks for draw in windows(world_size, rank).draws_at(start) for i in draw.ids]
        assert sorted(grouped) == sorted(plain) and (world_size > 2 or grouped != plain or start == 96)
    streams = [list(windows(world_size, rank).draws_from(16)) for rank in ranks]
    assert streams[0][0] == windows(world_size, 0).draws_at(16)[0]


def padded(found: list[list[int]]) -> int:
    return sum(max(part) * len(part) - sum(part) for part in found)


def test_grouping_pads_less() -> None:
    lengths = {}
    for grouped in (False, True):
        draws = windows(1, 0, grouped=grouped).draws_from(0)
        lengths[grouped] = [[LENGTHS[i] for i in draw.ids] for draw in draws]
    assert padded(lengths[True]) < 0.3 * padded(lengths[False])


def grouped(**changes: Any) -> dict[str, Any]:
    return recipe(SENTENCES, loader={"workers": 0, "group_by_length": True}, **changes)


def test_losses_are_those_without_grouping_on_any_world(tmp_path: Path) -> None:
    found = {}
    for name, wanted, world_size in (("plain", SENTENCES, 1), ("one", grouped(), 1), ("two", grouped(), 2)):
        run = make_run(tmp_path / name, wanted, CODE)
        run_world(run, world_size)
        found[name] = (metrics_of(run, "train/loss"), {s: sorted(ids) for s, ids in sample_ids_of(run).items()})
    for name in ("one", "two"):
        assert found[name][0] == pytest.approx(found["plain"][0], rel=1e-12)
        assert found[name][1] == found["plain"][1]


def test_a_dataset_without_lengths_is_refused_in_one_line(tmp_path: Path) -> None:
    datasets = [{"name": "first", "target": "data:Points", "args": {"size": 37}, "num_samples": 37}]
    wanted = grouped(datasets=datasets, model={"target": "model:network"}, loss={"target": "model:cross_entropy"})
    with world_of(make_run(tmp_path / "run", wanted, CODE), 1) as world:
        assert world.wait() == [1]
    assert "datasets.0: dataset 'first' has no `lengths`, and loader.group_by_length is set" in str(
        failure_of(world.attempt)["message"]
    )
