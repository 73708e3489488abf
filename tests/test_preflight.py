"""Which nodes fall behind, by the figures of their ranks."""

from __future__ import annotations

import errno
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.preflight import BOUNDS, CLOCK_S, Comparison, Figures, duration, in_one_line

USUAL = Figures(matmul_s=0.010, link_s=0.004, all_reduce_s=0.006, clock_s=1.7e9, write_s=0.05)
NODES = ("node1", "node2", "node3")


def compared(*ranks: Figures, nodes: tuple[str, ...] = NODES) -> Comparison:
    return Comparison.of(nodes, [rank.numbers() for rank in ranks])


def found(comparison: Comparison) -> list[tuple[str, str]]:
    return [(finding.node, finding.what) for finding in comparison.findings()]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        pytest.param(replace(USUAL, matmul_s=0.019), [], id="almost twice the time"),
        pytest.param(
            replace(USUAL, matmul_s=0.021),
            ["a matrix product takes 21 ms, 10 ms in the median of 3 nodes"],
            id="more than twice",
        ),
        pytest.param(replace(USUAL, link_s=0.015), [], id="a link that others share"),
        pytest.param(
            replace(USUAL, link_s=0.4),
            ["an exchange with a neighbour takes 400 ms, 4 ms in the median of 3 nodes"],
            id="a slow link",
        ),
        pytest.param(replace(USUAL, write_s=4.0), [], id="a file system that is busy"),
        pytest.param(
            replace(USUAL, write_s=6.0),
            ["a write beside the checkpoints takes 6 s, 50 ms in the median of 3 nodes"],
            id="a file system that is all but gone",
        ),
        pytest.param(
            replace(USUAL, write_s=math.nan, write_errno=errno.EROFS),
            ["it cannot write beside the checkpoints, where others can: Read-only file system"],
            id="a mount that is not as the others'",
        ),
        pytest.param(replace(USUAL, clock_s=1.7e9 - 1.9), [], id="a clock that is almost right"),
        pytest.param(
            replace(USUAL, clock_s=1.7e9 - 3600),
            ["its clock is 3,600.0 s behind the median of 3 nodes"],
            id="a clock that is not",
        ),
        pytest.param(
            replace(USUAL, clock_s=1.7e9 + 2.5),
            ["its clock is 2.5 s ahead of the median of 3 nodes"],
            id="a clock that is ahead",
        ),
        pytest.param(
            replace(USUAL, matmul_s=1.0, clock_s=0.0),
            [
                "a matrix product takes 1 s, 10 ms in the median of 3 nodes",
                "its clock is 1,700,000,000.0 s behind the median of 3 nodes",
            ],
            id="two things at once",
        ),
    ],
)
def test_a_node_is_named_with_its_figure_and_the_median(second: Figures, told: list[str]) -> None:
    assert found(compared(USUAL, second, USUAL)) == [("node2", what) for what in told]


def test_what_to_do_is_said_and_what_to_write_instead() -> None:
    problem = compared(USUAL, replace(USUAL, link_s=1.0), USUAL).findings()[0].as_problem()
    assert problem.where == "preflight: node2"
    assert problem.fix == "have its network looked at; with preflight: false the run takes the node as it is"


def test_a_node_is_what_its_slowest_rank_is() -> None:
    ranks = [USUAL] * 6
    ranks[3] = replace(USUAL, matmul_s=0.05)
    assert [node for node, _ in found(compared(*ranks))] == ["node2"]


def test_of_two_nodes_the_slower_one_is_named_but_their_one_link_blames_neither() -> None:
    slow = replace(USUAL, matmul_s=0.05, link_s=1.0)
    for ranks, node in (((slow, USUAL), "node1"), ((USUAL, slow), "node2")):
        told = found(compared(*ranks, nodes=NODES[:2]))
        assert [name for name, _ in told] == [node] and "a matrix product" in told[0][1]


def test_a_node_alone_is_compared_with_nothing() -> None:
    assert found(compared(replace(USUAL, link_s=math.nan, matmul_s=99.0), nodes=("node1",))) == []


def test_where_no_node_can_write_none_is_to_blame() -> None:
    full = replace(USUAL, write_s=math.nan, write_errno=errno.ENOSPC)
    assert (found(compared(full, full, full)), compared(full, full, full).write_errno()) == ([], errno.ENOSPC)
    assert compared(full, USUAL, full).write_errno() == 0
    assert [node for node, _ in found(compared(full, USUAL, full))] == ["node1", "node3"]


def test_a_barrier_that_lets_a_rank_go_late_is_no_wrong_clock() -> None:
    """The earliest of a node's ranks was held up least."""
    late = replace(USUAL, clock_s=USUAL.clock_s + 9)
    assert found(compared(USUAL, USUAL, USUAL, late, USUAL, USUAL)) == []


seconds = st.floats(1e-5, 10.0)


@st.composite
def worlds(draw: st.DrawFn, *, least: int = 1) -> list[Figures]:
    """Nodes of one rank, however different in all that has a bound."""
    num_nodes = draw(st.integers(least, 9))
    times = st.builds(Figures, seconds, seconds, seconds, st.floats(1.7e9, 1.7e9 + 9), seconds)
    return draw(st.lists(times, min_size=num_nodes, max_size=num_nodes))


def names(ranks: list[Figures]) -> tuple[str, ...]:
    return tuple(f"node{index}" for index in range(len(ranks)))


@given(ranks=worlds())
def test_of_each_figure_half_of_the_nodes_pass_at_least_and_of_the_clocks_one(ranks: list[Figures]) -> None:
    """So a job is never left without a node by one of them."""
    comparison = compared(*ranks, nodes=names(ranks))
    for bound in BOUNDS:
        assert sum(what.startswith(bound.what) for _, what in found(comparison)) <= len(ranks) // 2
    assert sum(what.startswith("its clock") for _, what in found(comparison)) < len(ranks)


@given(ranks=worlds(), turn=st.integers(0, 8))
def test_what_is_found_does_not_hang_on_the_order_of_nodes(ranks: list[Figures], turn: int) -> None:
    turned = [*ranks[turn:], *ranks[:turn]]
    found_turned = compared(*turned, nodes=(*names(ranks)[turn:], *names(ranks)[:turn]))
    assert sorted(found(found_turned)) == sorted(found(compared(*ranks, nodes=names(ranks))))


@given(
    shares=st.lists(st.floats(1.0, 1.9), min_size=3, max_size=9),
    base=st.floats(1e-4, 1.0),
    bad=st.integers(0, 8),
    figure=st.sampled_from(["matmul_s", "link_s", "write_s"]),
)
def test_one_bad_node_among_nodes_that_differ_a_little_is_the_only_one_named(
    shares: list[float], base: float, bad: int, figure: str
) -> None:
    bad %= len(shares)
    ranks = [replace(USUAL, **{figure: base * share}) for share in shares]
    assert found(compared(*ranks, nodes=names(ranks))) == []
    ranks[bad] = replace(USUAL, **{figure: base * 100 + 10})
    assert [node for node, _ in found(compared(*ranks, nodes=names(ranks)))] == [f"node{bad}"]


@given(ranks=worlds(), later_s=st.floats(-1e8, 1e8))
def test_the_time_of_day_does_not_matter(ranks: list[Figures], later_s: float) -> None:
    later = [replace(rank, clock_s=rank.clock_s + later_s) for rank in ranks]
    skews, moved = (compared(*some, nodes=names(ranks)).skews_s() for some in (ranks, later))
    assert moved == pytest.approx(skews, abs=1e-6)
    assert all(abs(skew) <= 9 for skew in skews.values()) and CLOCK_S < 9


def test_the_summary_of_a_thousand_nodes_is_as_short_as_that_of_three() -> None:
    ranks = [USUAL] * 999 + [replace(USUAL, link_s=1.0)]
    few, many = compared(USUAL, USUAL, ranks[-1]), compared(*ranks, nodes=names(ranks))
    assert len(json.dumps(many.summary())) < len(json.dumps(few.summary())) + 50
    assert many.summary()["link_s"] == {"median": 0.004, "node": "node999", "value": 1.0}
    assert [one["node"] for one in many.summary()["failed"]] == ["node999"]


def test_the_log_has_one_line() -> None:
    summary = compared(USUAL, replace(USUAL, link_s=1.5, clock_s=USUAL.clock_s + 0.25), USUAL).summary()
    assert in_one_line(summary) == (
        "all-reduce 6 ms; matmul 10 ms, node1 10 ms; link 4 ms, node2 1.5 s; write 50 ms, node1 50 ms; "
        "clock skew 0 ms, node2 250 ms"
    )
    alone = compared(replace(USUAL, link_s=math.nan), nodes=("node1",)).summary()
    assert "link" not in in_one_line(alone) and json.loads(json.dumps(alone, allow_nan=False)) == alone


@pytest.mark.parametrize(
    ("value", "text"), [(0.000031, "0.031 ms"), (0.412, "412 ms"), (3.14159, "3.14 s"), (-2, "-2 s")]
)
def test_durations_have_three_digits_and_their_unit(value: float, text: str) -> None:
    assert duration(value) == text
