"""Where ranks stand: from outside, or by themselves; stopped or not."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.node import stacks
from orchestrator.node.stacks import Stuck, dump_stacks, find_tool
from orchestrator.pulse import stack_file
from tests.node.silent import rank_process


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[tuple[Stuck, ...]]:
    """Two ranks that stand in `wait_for_ever`, the second one stopped."""
    with rank_process(tmp_path, 0) as first, rank_process(tmp_path, 1) as second:
        second.send_signal(signal.SIGSTOP)
        pids = (first.pid, second.pid)
        yield tuple(
            Stuck(pid, f"rank {rank} is silent", stack_file(tmp_path, rank), tmp_path / f"stack-{rank}.txt")
            for rank, pid in enumerate(pids)
        )


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def check(stuck: tuple[Stuck, ...]) -> None:
    for one in stuck:
        assert one.file.read_text().startswith(f"{one.told}\n\n") and "wait_for_ever" in one.file.read_text()
        assert one.file.stat().st_mode & 0o777 == 0o600


def test_py_spy_shows_them_from_outside(stuck: tuple[Stuck, ...]) -> None:
    assert dump_stacks(stuck, tool=find_tool()) == {one.pid for one in stuck}
    check(stuck)
    assert not any(one.own.read_bytes() for one in stuck), "none had to do anything for it"


def test_without_py_spy_they_write_their_own(stuck: tuple[Stuck, ...]) -> None:
    assert dump_stacks(stuck, tool=None) == {one.pid for one in stuck}
    check(stuck)


def test_where_py_spy_may_not_look_they_write_their_own(stuck: tuple[Stuck, ...], tmp_path: Path) -> None:
    refused = program(tmp_path / "py-spy", "echo 'Permission Denied' >&2; exit 1")
    assert dump_stacks(stuck, tool=refused) == {one.pid for one in stuck}
    check(stuck)


def test_a_py_spy_that_hangs_itself_is_left_behind(
    stuck: tuple[Stuck, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "_TOOL_S", 0.3)
    assert dump_stacks(stuck, tool=program(tmp_path / "py-spy", "exec sleep 60")) == {one.pid for one in stuck}
    check(stuck)


def test_a_process_that_shows_nothing_costs_no_more_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It handles no signal of ours, so it gets none: it would die of it."""
    monkeypatch.setattr(stacks, "DUMP_S", 0.5)
    began = time.monotonic()
    gone = Stuck(2**22 + 1, "rank 0", tmp_path / "own", tmp_path / "stack-0.txt")
    assert dump_stacks([gone], tool=None) == frozenset()
    assert time.monotonic() - began < 5 and not gone.file.exists()


def test_py_spy_beside_this_python_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert find_tool() is None
    (tmp_path / "bin").mkdir()
    beside = program(tmp_path / "bin" / "py-spy", "")
    assert find_tool() == beside
    on_path = program(tmp_path / "py-spy", "")
    assert find_tool() == on_path
