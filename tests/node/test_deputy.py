"""The driver's heartbeat, as a supervisor on another node sees it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.files import make_private_dir
from orchestrator.heartbeat import Heartbeat
from orchestrator.node.deputy import Deputy
from orchestrator.node.launch import node_launch
from orchestrator.run_dir import RunDir
from tests.node.test_launch import LAUNCH
from tests.support.fake_slurm import FakeSlurm
from tests.support.waiting import wait_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def look_for(deputy: Deputy, clock: Clock, seconds: int) -> list[bool]:
    """What it says in each of so many seconds."""
    told = []
    for _ in range(seconds):
        clock.now += 1
        told.append(deputy.driver_is_gone(is_idle=False))
    return told


def deputy_of(folder: Path, clock: Clock, silence_s: float | None, *, node_rank: int = 1) -> tuple[Deputy, Heartbeat]:
    run = RunDir(folder / "run")
    attempt = run.attempt(0)
    make_private_dir(attempt.path)
    launch = node_launch(LAUNCH | {"driver_silence_s": silence_s}, where="", node_rank=node_rank, env={})
    return Deputy(run, attempt, launch, clock), Heartbeat(attempt.driver, job_id="41", nodes=["node1", "node2"])


def test_the_driver_is_gone_when_its_heart_has_stood_still_for_as_long_as_a_node_may_be_silent(tmp_path: Path) -> None:
    clock = Clock()
    deputy, driver = deputy_of(tmp_path, clock, 20)
    for _ in range(5):
        driver.write()
        assert not any(look_for(deputy, clock, 20))
    assert look_for(deputy, clock, 1) == [True] and deputy.finds_driver_gone()
    driver.write()
    assert look_for(deputy, clock, 1) == [False], "it speaks again"


def test_a_supervisor_that_was_suspended_with_its_job_gives_the_driver_time_to_wake_up(tmp_path: Path) -> None:
    clock = Clock()
    deputy, driver = deputy_of(tmp_path, clock, 20)
    driver.write()
    look_for(deputy, clock, 3)
    clock.now += 3600
    assert not any(look_for(deputy, clock, 19))
    assert any(look_for(deputy, clock, 5))


def test_a_driver_that_finds_no_room_for_its_heartbeat_is_still_heard(tmp_path: Path) -> None:
    clock = Clock()
    deputy, driver = deputy_of(tmp_path, clock, 20)
    driver.write()
    in_the_way = tmp_path / "run" / "attempts" / "000" / ".driver.json.new"
    in_the_way.mkdir()
    for _ in range(5):
        look_for(deputy, clock, 15)
        driver.try_write()
        assert not deputy.driver_is_gone(is_idle=False)


def test_a_supervisor_that_ends_while_the_driver_speaks_waits_for_nothing(tmp_path: Path) -> None:
    clock = Clock()
    deputy, driver = deputy_of(tmp_path, clock, 300)
    driver.write()
    assert not deputy.finds_driver_gone()
    look_for(deputy, clock, 8)
    assert not deputy.finds_driver_gone()


def test_where_nobody_could_take_over_the_driver_is_never_gone(tmp_path: Path) -> None:
    clock = Clock()
    deputy, _ = deputy_of(tmp_path, clock, None)
    clock.now += 10_000
    assert not deputy.driver_is_gone(is_idle=False) and not deputy.finds_driver_gone()


@pytest.mark.parametrize(
    ("state", "is_idle", "node_rank", "is_gone"),
    [
        pytest.param("mix*", True, 1, True, id="a node that does not answer"),
        pytest.param("mix", True, 1, False, id="a node that answers"),
        pytest.param("mix*", False, 1, False, id="ranks at work"),
        pytest.param("mix*", True, 0, False, id="the ask of another supervisor"),
    ],
)
def test_a_driver_whose_node_does_not_answer_slurm_is_gone_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, is_idle: bool, node_rank: int, is_gone: bool
) -> None:
    slurm = FakeSlurm.install(tmp_path / "slurm")
    slurm.answers({"sinfo": {"out": f"node1 {state}\n"}})
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    clock = Clock()
    deputy, driver = deputy_of(tmp_path, clock, 315, node_rank=node_rank)
    driver.write()
    look_for(deputy, clock, 14)
    assert not deputy.driver_is_gone(is_idle=is_idle) and not slurm.calls, "its heart may beat yet"

    def says_so() -> bool:
        clock.now += 1
        return deputy.driver_is_gone(is_idle=is_idle)

    if is_gone:
        wait_for(says_so)
    else:
        for _ in range(20):
            assert not says_so()
            time.sleep(0.1)
        if deputy._asking:
            deputy._asking.wait()
    assert [call[3] for call in slurm.calls_of("sinfo")[:1]] == (
        ["--nodes=node1"] if is_idle and node_rank == 1 else []
    )


def test_what_slurm_said_about_a_silence_that_is_over_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes when the driver is heard again; the next silence is another one."""
    slurm = FakeSlurm.install(tmp_path / "slurm")
    slurm.answers({"sinfo": {"out": "node1 mix*\n"}})
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    clock = Clock()
    deputy, driver = deputy_of(tmp_path, clock, 315)
    driver.write()
    look_for(deputy, clock, 16)
    assert not deputy.driver_is_gone(is_idle=True)
    wait_for(lambda: slurm.calls)
    driver.write()
    assert look_for(deputy, clock, 1) == [False]
    slurm.answers({"sinfo": {"out": "node1 mix\n"}})
    look_for(deputy, clock, 15)
    for _ in range(20):
        assert not deputy.driver_is_gone(is_idle=True)
        time.sleep(0.1)
    driver.write()
    look_for(deputy, clock, 1)
