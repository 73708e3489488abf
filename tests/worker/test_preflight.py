"""Nodes compared with each other by real ranks, and what befalls one of them."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run_dir import RunDir
from orchestrator.worker.preflight import neighbours
from orchestrator.worker.world import World
from tests.support.needed import skip_or_fail
from tests.support.worlds import events_of, failure_of, make_run, metrics_of, run_world, world_of
from tests.worker.recipes import CODE, POINTS, recipe
from tests.worker.test_session import LOOP, own_run

COMPARED = recipe(POINTS, preflight=True)


def an_hour_ahead() -> dict[str, str]:
    """Variables by which a process takes the time of day from Debian's faketime."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        skip_or_fail("faketime is not installed (run cluster/dev/install-packages)")
    return {"LD_PRELOAD": str(library), "FAKETIME": "+1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def ends_failed(
    folder: Path, wanted: Mapping[str, Any], *, file_limits: tuple[int, ...] = (), **of_second: str
) -> tuple[RunDir, list[dict[str, Any]]]:
    """A run of three nodes that fails, with more variables on the second one; what each rank says of it.

    `file_limits`: the ranks that can write no file of more than a megabyte.
    """
    run = make_run(folder / "run", wanted, CODE)
    with world_of(run, 3, num_nodes=3, is_anew="LD_PRELOAD" in of_second, of_rank={1: of_second}) as world:
        for rank in file_limits:
            resource.prlimit(world.ranks[rank].pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        assert world.wait() == [1, 1, 1], world.log()
        return run, [failure_of(world.attempt, rank) for rank in range(3)]


def assert_second_is_named(run: RunDir, told: list[dict[str, Any]], what: str) -> None:
    """By all ranks in the same words, and in the journal; and nothing was trained."""
    assert {one["type"] for one in told} == {"NodesFailed"} and all(one["nodes"] == ["node2"] for one in told)
    (message,) = {one["message"] for one in told}
    assert message.startswith(f"preflight: node2: {what}"), message
    assert message.endswith("looked at; with preflight: false the run takes the node as it is)")
    (event,) = events_of(run, "preflight")
    assert [finding["node"] for finding in event["failed"]] == ["node2"]
    assert metrics_of(run, "train/loss") == {}


@pytest.mark.parametrize(("world_size", "num_nodes"), [(1, 1), (4, 2)])
def test_nodes_that_are_alike_train_as_without_it(
    tmp_path: Path, uninterrupted: RunDir, world_size: int, num_nodes: int
) -> None:
    run = make_run(tmp_path / "run", COMPARED, CODE)
    with world_of(run, world_size, num_nodes=num_nodes) as world:
        assert world.wait() == [0] * world_size, world.log()
    expected = metrics_of(uninterrupted, "train/loss")
    assert metrics_of(run, "train/loss") == pytest.approx(expected, rel=1e-12, abs=0)
    (event,) = events_of(run, "preflight")
    assert (event["num_nodes"], event["failed"], "link_s" in event) == (num_nodes, [], num_nodes > 1)
    assert 1 < event["seconds"] < 20
    assert world.log().count(f"preflight of {num_nodes} nodes in ") == 1
    assert not list(run.checkpoints.glob(".probe*"))


def test_a_loop_of_ones_own_is_compared_too(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run", LOOP.replace("DROPOUT", "0.0"), preflight=True)
    run_world(run, 1)
    assert len(events_of(run, "preflight")) == 1


def test_a_recipe_that_does_not_ask_is_not_measured(uninterrupted: RunDir) -> None:
    assert events_of(uninterrupted, "preflight") == []


def test_a_node_whose_clock_is_wrong_is_named_by_all_ranks(tmp_path: Path) -> None:
    run, told = ends_failed(tmp_path, COMPARED, **an_hour_ahead())
    assert_second_is_named(run, told, "its clock is 3,600.0 s ahead of the median of 3 nodes")


def test_a_slow_node_is_named_by_all_ranks(tmp_path: Path) -> None:
    bad = recipe(COMPARED, model={"target": "bad_node:network"})
    run, told = ends_failed(tmp_path, bad, BAD_NODE="slow", BAD_RANK="1")
    assert_second_is_named(run, told, "a matrix product takes ")


def test_a_node_that_cannot_write_is_named_by_all_ranks(tmp_path: Path) -> None:
    run, told = ends_failed(tmp_path, COMPARED, file_limits=(1,))
    assert_second_is_named(run, told, "it cannot write beside the checkpoints, where others can: File too large")


def test_where_no_node_can_write_the_place_is_named_and_no_node(tmp_path: Path) -> None:
    run, told = ends_failed(tmp_path, COMPARED, file_limits=(0, 1, 2))
    assert {one["type"] for one in told} == {"OSError"}
    assert all(one["message"].endswith(f"File too large: '{run.checkpoints}'") for one in told), told[0]["message"]


@pytest.mark.parametrize("share", [1, 3])
@pytest.mark.parametrize("num_nodes", range(1, 10))
def test_every_rank_meets_its_neighbours_and_none_waits_for_ever(num_nodes: int, share: int) -> None:
    """Both ends of a link come to it in the same order; a node has two neighbours, or one of two nodes."""
    count = num_nodes * share
    waiting = {rank: list(neighbours(World(rank, count, rank % share, share, rank // share))) for rank in range(count)}
    met = {rank: set(others) for rank, others in waiting.items()}
    for rank, others in met.items():
        assert len(others) == len(waiting[rank]) == min(num_nodes - 1, 2)
        assert all(rank in met[other] and (rank - other) % share == 0 for other in others)
    while any(waiting.values()):
        ready = [rank for rank, others in waiting.items() if others and waiting[others[0]][:1] == [rank]]
        assert ready, waiting
        for rank in ready:
            waiting[rank].pop(0)
