"""What the driver does about a node that falls behind in the preflight, and about one that does not answer."""

from __future__ import annotations

from pathlib import Path

from orchestrator.files import read_json
from tests.job.runs import driver_on
from tests.job.trained import make_run
from tests.support.waiting import wait_for
from tests.support.worlds import events_of
from tests.worker.recipes import POINTS, recipe

TWO_NODES = recipe(
    POINTS,
    model={"target": "bad_node:network"},
    duration={"samples": 64},
    resources={"num_nodes": 2},
    preflight=True,
    hang_timeout="0:00:03",
)


def test_a_node_that_falls_behind_is_left_out_and_the_run_goes_on_without_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", recipe(TWO_NODES, hang_timeout="0:01:00"))
    with driver_on(run, env={"BAD_NODE": "slow", "BAD_RANK": "1"}) as driver:
        exit_code, output = driver.end()
    assert exit_code == 0, output
    first, last = (read_json(attempt.verdict) for attempt in run.all_attempts())
    bad = read_json(run.attempt(0).launch)["nodes"][1]["name"]
    assert (first["cause"], first["node"], first["left_out"]) == ("failed_check", bad, [bad])
    assert first["reason"].startswith(f"preflight: {bad}: a matrix product takes ")
    assert first["then"] == f"attempt 001: started again from the newest checkpoint, without {bad}"
    assert last["cause"] == "done" and len(read_json(run.attempt(1).launch)["nodes"]) == 1
    assert [event["num_nodes"] for event in events_of(run, "preflight")] == [2, 1]


def test_a_node_that_never_comes_back_from_its_own_part_is_named(tmp_path: Path) -> None:
    """The others wait for it in the exchange; it has `hang_timeout` for that, not the minutes of a start."""
    run = make_run(tmp_path / "run", TWO_NODES)
    with driver_on(run, env={"BAD_NODE": "stuck", "BAD_RANK": "1"}) as driver:
        wait_for(driver.attempt.verdict.exists)
    verdict = driver.verdict()
    assert (verdict["cause"], verdict["rank"]) == ("hung", 1), verdict
    assert verdict["reason"].endswith("in its preflight, see logs/stack-1.txt")
    assert "wait_for_nothing" in run.attempt(0).stack(1).read_text()


def test_an_all_reduce_that_never_comes_back_is_ended_too(tmp_path: Path) -> None:
    """All ranks are in it, so nobody knows whose fault it is; the stacks show what they wait for."""
    run = make_run(tmp_path / "run", TWO_NODES)
    with driver_on(run, env={"BAD_NODE": "deaf", "BAD_RANK": "1"}) as driver:
        wait_for(driver.attempt.verdict.exists)
    verdict = driver.verdict()
    assert verdict["cause"] == "hung" and " s in its preflight, see logs/stack-" in verdict["reason"]
    for rank in (0, 1):
        assert "_all_reduce_s" in run.attempt(0).stack(rank).read_text()
