"""Silence of a supervisor, by the driver's own clock."""

from __future__ import annotations

from pathlib import Path

from orchestrator.files import write_json
from orchestrator.heartbeat import Heartbeat
from orchestrator.job.node_watch import NodesNow, NodeWatch


def test_a_supervisor_is_silent_when_its_file_has_stood_still_for_three_heartbeats(tmp_path: Path) -> None:
    now = 1000.0
    files = {name: tmp_path / f"node-{name}.json" for name in ("node1", "node2", "node3")}
    watch = NodeWatch(files, clock=lambda: now)

    def beat(name: str, state: str = "running") -> None:
        write_json(files[name], {"state": state, "heartbeat_at": now})

    for name in ("node1", "node2"):
        beat(name)
    assert watch.look().silent == ()
    now += 14
    beat("node1")
    assert watch.look().silent == ()
    now += 2
    assert watch.look().silent == ("node2",), "node3 has not begun, and is not silent"
    beat("node2")
    assert watch.look().silent == ()
    now += 20
    beat("node1", "ended")
    beat("node2", "ended")
    watch.look()
    now += 20
    assert watch.look().silent == (), "who has ended need not speak"


def test_nobody_is_at_work_when_each_supervisor_says_that_its_ranks_stand_still_or_says_nothing_more(
    tmp_path: Path,
) -> None:
    now = 1000.0
    files = {name: tmp_path / f"node-{name}.json" for name in ("node1", "node2", "node3")}
    watch = NodeWatch(files, clock=lambda: now)

    def tell(name: str, stand_still: bool, state: str = "running") -> None:
        Heartbeat(files[name], state=state, stand_still=stand_still).write()

    tell("node1", True)
    tell("node2", False)
    assert not watch.look().stand_still, "node3 has not begun"
    tell("node3", True)
    assert not watch.look().stand_still, "node2 is at work"
    now += 20
    tell("node1", True)
    tell("node3", True)
    assert watch.look() == NodesNow(silent=("node2",), stand_still=True)
    tell("node2", True)
    assert watch.look() == NodesNow(silent=(), stand_still=True)
    for name in files:
        tell(name, True, state="ended")
    assert not watch.look().stand_still, "they do nothing any more"
