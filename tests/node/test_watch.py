"""A supervisor watches over its ranks, and hears what other nodes' supervisors say."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.hang import Hang
from orchestrator.heartbeat import Heartbeat
from orchestrator.node import neighbours, watch
from orchestrator.node.launch import NodeLaunch
from orchestrator.node.watch import Watch, pulses
from orchestrator.pulse import Phase, make_pulse
from orchestrator.run_dir import PULSE_VARIABLE, AttemptDir, RunDir
from orchestrator.worker.pulse import Pulse
from tests.node.silent import rank_process
from tests.support.waiting import wait_for

LAUNCH = NodeLaunch(
    attempt=0,
    node="node2",
    node_rank=1,
    argv=(),
    environment={},
    host="",
    port=0,
    accelerator="cpu",
    gpus_per_node=2,
    cpus_per_node=None,
    binds_cpus=False,
    hang_timeout_s=0.3,
)
BESIDE = replace(LAUNCH, other_nodes=("node1",))
WAITS = Hang(0, "step", 5.0, stack="logs/stack-0.txt", step=7)


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDir:
    found = RunDir(tmp_path / "run").attempt(0)
    make_private_dir(found.logs)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_private_dir(tmp_path / "pulses")


def watch_over(launch: NodeLaunch, attempt: AttemptDir, folder: Path | None) -> Watch:
    return Watch(launch, attempt, folder, Heartbeat(attempt.node(launch.node), hang=None, silent=None))


@contextmanager
def pulse_of(folder: Path, rank: int) -> Iterator[Pulse]:
    """The pulse of a rank in this process, that has made step 7: it can be at work whenever it is looked at."""
    make_pulse(folder, rank)
    pulse = Pulse.of_rank({PULSE_VARIABLE: str(folder), "RANK": str(rank)})
    pulse.took(Phase.STEP, 0.001)
    pulse.stepped(7)
    yield pulse


def finds_hang(watching: Watch, *, for_s: float, meanwhile: Callable[[], None] = lambda: None) -> bool:
    """What it says, asked ten times a second until it finds one, or for so long; `meanwhile` before each look."""
    ends_at = time.monotonic() + for_s
    while time.monotonic() < ends_at:
        meanwhile()
        if watching.finds_hang():
            return True
        time.sleep(0.1)
    return False


def told(attempt: AttemptDir) -> dict[str, Any]:
    found = read_json(attempt.node(LAUNCH.node))
    return found or {"hang": None, "silent": None}


def others_say(
    attempt: AttemptDir,
    silent: Hang | None,
    *,
    state: str = "running",
    hang: Hang | None = None,
    heartbeat_at: float = 1.0,
) -> None:
    record = {
        "state": state,
        "silent": silent and silent.as_json(),
        "hang": hang and hang.as_json(),
        "heartbeat_at": heartbeat_at,
    }
    write_json(attempt.node("node1"), record)


def test_the_ranks_pulses_lie_in_a_private_folder_that_goes_with_its_supervisor() -> None:
    with pulses(LAUNCH) as folder:
        assert folder is not None and folder.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in folder.iterdir()) == ["rank-2", "rank-3"]
    assert not folder.exists()


def test_of_two_silent_ranks_the_one_that_is_stopped_is_told_and_both_are_shown(
    attempt: AttemptDir, folder: Path
) -> None:
    with rank_process(folder, 2, step=7), rank_process(folder, 3, step=8) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        assert finds_hang(watch_over(LAUNCH, attempt, folder), for_s=20)
    hang = Hang(**told(attempt)["hang"])
    assert (hang.rank, hang.phase, hang.step, hang.is_held, hang.stack) == (3, "step", 8, True, "logs/stack-3.txt")
    assert 0.3 < hang.silent_s < 20 and abs(time.time() - hang.silent_s - hang.since) < 20
    assert all("wait_for_ever" in attempt.stack(rank).read_text() for rank in (2, 3))


def test_a_rank_at_work_is_waited_for_by_the_others(attempt: AttemptDir, folder: Path) -> None:
    with rank_process(folder, 2), pulse_of(folder, 3) as at_work:
        watching = watch_over(LAUNCH, attempt, folder)
        assert not finds_hang(watching, for_s=3, meanwhile=at_work.beat)
    assert told(attempt)["silent"] is None and not list(attempt.logs.iterdir())


def test_a_rank_that_has_ended_is_not_waited_for(attempt: AttemptDir, folder: Path) -> None:
    with rank_process(folder, 2), rank_process(folder, 3, beats=True) as ended:
        ended.kill()
        assert finds_hang(watch_over(LAUNCH, attempt, folder), for_s=20)
    assert told(attempt)["hang"]["rank"] == 2


def test_ranks_that_give_no_signs_never_hang(attempt: AttemptDir) -> None:
    with pulses(LAUNCH) as folder:
        assert not finds_hang(watch_over(LAUNCH, attempt, folder), for_s=0.8)
    assert not finds_hang(watch_over(LAUNCH, attempt, None), for_s=0.3)


def test_a_supervisor_that_was_stopped_with_its_ranks_gives_them_their_time_anew(
    attempt: AttemptDir, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_WAS_STOPPED_S", 1.0)
    patient = replace(LAUNCH, hang_timeout_s=3.0)
    with rank_process(folder, 2), rank_process(folder, 3):
        watching = watch_over(patient, attempt, folder)
        watching.finds_hang()
        time.sleep(3.5)
        went_on_at = time.monotonic()
        assert not finds_hang(watching, for_s=1.0)
        assert finds_hang(watching, for_s=20) and time.monotonic() - went_on_at >= 3.0


def test_ranks_that_stand_still_are_told_long_before_they_hang(
    attempt: AttemptDir, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENT_S", 0.5)
    patient = replace(LAUNCH, hang_timeout_s=60.0)
    with rank_process(folder, 2) as stopped, pulse_of(folder, 3) as at_work:
        watching = watch_over(patient, attempt, folder)
        assert not finds_hang(watching, for_s=1.5, meanwhile=at_work.beat)
        assert not told(attempt).get("stand_still"), "one is at work"
        wait_for(lambda: watching.finds_hang() or told(attempt).get("stand_still"))
        assert told(attempt)["silent"] is None and stopped.poll() is None
        wait_for(lambda: at_work.beat() or watching.finds_hang() or not told(attempt)["stand_still"])


def test_nothing_hangs_while_a_rank_of_another_node_is_at_work(attempt: AttemptDir, folder: Path) -> None:
    """It may be writing a checkpoint. Its supervisor is told by this node's file that all are silent here."""
    others_say(attempt, None)
    with rank_process(folder, 2), rank_process(folder, 3):
        watching = watch_over(BESIDE, attempt, folder)
        wait_for(lambda: watching.finds_hang() or told(attempt)["silent"])
        assert not finds_hang(watching, for_s=1.5)
        assert told(attempt)["silent"]["rank"] in (2, 3) and told(attempt)["hang"] is None
        assert not list(attempt.logs.iterdir())
        others_say(attempt, replace(WAITS, since=time.time() + 60))
        assert finds_hang(watching, for_s=20)
    assert told(attempt)["hang"]["rank"] in (2, 3)


def test_whoever_waits_for_a_rank_of_another_node_lets_that_one_speak_and_speaks_after_all(
    attempt: AttemptDir, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_OTHERS_FIRST_S", 6.0)
    others_say(attempt, replace(WAITS, is_held=True))
    with rank_process(folder, 2), rank_process(folder, 3):
        watching, began = watch_over(BESIDE, attempt, folder), time.monotonic()
        wait_for(lambda: watching.finds_hang() or (told(attempt)["silent"] or {}).get("stack"))
        assert told(attempt)["hang"] is None, "its stacks are there already"
        for rank in (2, 3):
            attempt.stack(rank).write_text("as it stood")
        assert finds_hang(watching, for_s=20) and time.monotonic() - began >= 6.0
    assert told(attempt)["hang"]["stack"]
    assert [attempt.stack(rank).read_text() for rank in (2, 3)] == ["as it stood"] * 2


def test_a_node_that_ends_because_of_a_hang_does_not_make_the_others_look_again(
    attempt: AttemptDir, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their ranks are on from where they waited: its end let them go. They are told to end, and end by themselves only
    where nobody tells them."""
    monkeypatch.setattr(watch, "_OTHERS_FIRST_S", 6.0)
    others_say(attempt, replace(WAITS, is_held=True))
    with rank_process(folder, 2), rank_process(folder, 3):
        watching, began = watch_over(BESIDE, attempt, folder), time.monotonic()
        wait_for(lambda: watching.finds_hang() or (told(attempt)["silent"] or {}).get("stack"))
        for rank in (2, 3):
            attempt.stack(rank).write_text("as it stood")
        others_say(attempt, None, state="ended", hang=replace(WAITS, is_held=True))
        assert finds_hang(watching, for_s=20) and time.monotonic() - began >= 6.0
    assert [attempt.stack(rank).read_text() for rank in (2, 3)] == ["as it stood"] * 2


def test_nodes_that_fell_silent_together_agree_on_who_speaks_last(
    attempt: AttemptDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the stacks of all are there by then, though the clocks are put back meanwhile."""
    now = time.time
    folders = [make_private_dir(tmp_path / name) for name in ("pulses1", "pulses2")]
    first = replace(LAUNCH, node="node1", node_rank=0, gpus_per_node=1, other_nodes=("node2",))
    second = replace(BESIDE, gpus_per_node=1)
    with rank_process(folders[0], 0), rank_process(folders[1], 1):
        watching = [
            watch_over(launch, attempt, folder) for launch, folder in zip((first, second), folders, strict=False)
        ]
        wait_for(lambda: [one.finds_hang() for one in watching] and all(silent_in(attempt, first, second)))
        monkeypatch.setattr(time, "time", lambda: now() - 60.0)
        wait_for(lambda: any(one.finds_hang() for one in watching), timeout_s=60)
    assert all(attempt.stack(rank).exists() for rank in (0, 1))


def silent_in(attempt: AttemptDir, *launches: NodeLaunch) -> list[Any]:
    """What each of these nodes' files says of silence."""
    return [(read_json(attempt.node(launch.node)) or {}).get("silent") for launch in launches]


def test_a_node_that_has_ended_or_says_nothing_any_more_is_not_waited_for(
    attempt: AttemptDir, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "UNHEARD_S", 4.0)
    with rank_process(folder, 2), rank_process(folder, 3):
        watching = watch_over(BESIDE, attempt, folder)
        for heartbeat in range(4):
            others_say(attempt, None, heartbeat_at=float(heartbeat))
            assert not finds_hang(watching, for_s=1.0), "it is heard"
        assert finds_hang(watching, for_s=20)
        others_say(attempt, None, state="ended", heartbeat_at=9.0)
        assert finds_hang(watch_over(BESIDE, attempt, folder), for_s=20)


def test_a_file_of_another_node_that_is_damaged_is_none(attempt: AttemptDir, tmp_path: Path) -> None:
    heard = neighbours.Neighbours([attempt.node("node1")])
    for text in ("", "{", json.dumps({"state": "running"})):
        attempt.node("node1").write_text(text)
        assert heard.hangs() is None
