"""When the driver ends a step because ranks are waited for in vain: nodes that are lost, and those that may be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.heartbeat import Heartbeat
from orchestrator.job import waiting
from orchestrator.job.forwarder import Forwarder
from orchestrator.job.node_watch import NodeWatch
from orchestrator.job.slurm_job import JobNow
from orchestrator.job.waiting import Watch
from orchestrator.run_dir import RunDir

NODES = ("node1", "node2")


@dataclass
class Step:
    """Ends when it is killed, or after so many looks."""

    looks: int
    failed: tuple[str, ...] = ()
    killed_without: tuple[str, ...] | None = None

    def poll(self) -> int | None:
        self.looks -= 1
        return -9 if self.killed_without is not None or self.looks < 0 else None

    def kill(self, *, without: tuple[str, ...] = ()) -> None:
        self.killed_without = without

    def failed_nodes(self) -> tuple[str, ...]:
        return self.failed


@dataclass
class Slurm:
    """What it says, and when it was asked."""

    nodes: tuple[str, ...] = NODES
    unreached: frozenset[str] = frozenset()
    now: float = field(default=1000.0, init=False)
    asked_at: list[float] = field(default_factory=list, init=False)

    def job(self) -> JobNow:
        self.asked_at.append(self.now)
        return JobNow("RUNNING", self.nodes)

    def clock(self) -> float:
        """Half a second later with each look."""
        self.now += 0.5
        return self.now


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_S", 0.0)


def watched(folder: Path, step: Step, slurm: Slurm, *, stand_still: bool) -> Watch:
    """A watch that has waited for the end of `step`, while ranks stand still or do not."""
    run = RunDir(folder / "run")
    attempt = run.attempt(0)
    attempt.path.mkdir(parents=True)
    for name in NODES:
        Heartbeat(attempt.node(name), state="running", stand_still=stand_still).write()
    files = {name: attempt.node(name) for name in NODES}
    watch = Watch(
        step,  # type: ignore[arg-type]
        Silent(),  # type: ignore[arg-type]
        Heartbeat(attempt.driver),
        NodeWatch(files),
        slurm.job,
        lambda: slurm.unreached,
        run.cancel.exists,
        slurm.clock,
    )
    watch.wait()
    return watch


class Silent(Forwarder):
    """Has nothing to do."""

    def __init__(self) -> None: ...

    def keep_running(self) -> None: ...


def test_a_node_that_does_not_answer_slurm_is_given_up_when_nobody_is_at_work(tmp_path: Path) -> None:
    """Slurm itself may take minutes more to take it from the job."""
    step, slurm = Step(looks=100), Slurm(unreached=frozenset({"node2", "another"}))
    watch = watched(tmp_path, step, slurm, stand_still=True)
    assert watch.lost == step.killed_without == ("node2",) and len(slurm.asked_at) == 1


def test_a_node_that_does_not_answer_slurm_is_let_alone_while_ranks_are_at_work(tmp_path: Path) -> None:
    """Its daemon may have died; then nobody needs it."""
    step, slurm = Step(looks=100), Slurm(unreached=frozenset({"node2"}))
    assert watched(tmp_path, step, slurm, stand_still=False).lost == ()
    assert step.killed_without is None and not slurm.asked_at


def test_where_all_stand_still_on_nodes_that_answer_nobody_is_given_up_and_slurm_is_not_pestered(
    tmp_path: Path,
) -> None:
    """An hour of it: at once, with each look at first, and every half a minute at last."""
    step, slurm = Step(looks=7200), Slurm()
    assert watched(tmp_path, step, slurm, stand_still=True).lost == ()
    pauses = [later - at for at, later in itertools.pairwise(slurm.asked_at)]
    assert slurm.asked_at[0] == 1000.5 and pauses[:3] == [0.5, 0.5, 0.5]
    assert pauses == sorted(pauses) and pauses[-1] == 30.0 and len(pauses) < 160


def test_a_node_that_is_said_to_have_failed_is_lost_once_the_job_has_it_no_more(tmp_path: Path) -> None:
    step = Step(looks=50, failed=("node2",))
    assert watched(tmp_path / "has", step, Slurm(), stand_still=False).lost == ()
    watch = watched(tmp_path / "has not", step := Step(50, ("node2",)), Slurm(nodes=("node1",)), stand_still=False)
    assert watch.lost == step.killed_without == ("node2",)
