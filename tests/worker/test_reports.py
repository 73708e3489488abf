"""What ranks tell each other about their steps: nothing is lost, nothing twice, and all decide at the same step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.reports import BEAT_S, MOST_STEPS, Exchanged, Reports, StepReport
from orchestrator.worker.world import Peers, World


@pytest.fixture
def alone() -> Peers:
    return Peers(World(0, 1, 0, 1, 0), torch.device("cpu"))


def report(step: int) -> StepReport:
    loss = torch.tensor(float(step), dtype=torch.float64)
    return StepReport(step, 8 * step, 8, 8, 0.1, loss, None, waited_s=0.5, time_s=0.01, ended_at_ms=step)


def made(reports: Reports, step: int) -> list[Exchanged]:
    """What is heard after a step."""
    reports.add(report(step))
    return list(reports.exchange())


def told_of(reports: Reports, num_steps: int) -> list[Exchanged]:
    told = [each for step in range(1, num_steps + 1) for each in made(reports, step)]
    return [*told, *reports.rest()]


def test_every_step_is_told_once_in_order_and_none_before_the_next_one_is_made(alone: Peers) -> None:
    reports = Reports(alone, StopRequest(), lambda: False)
    assert made(reports, 1) == []
    assert [r.step for told in made(reports, 2) for r in told.reports] == [1]
    steps = [r.step for told in (*told_of(reports, 0), *reports.rest()) for r in told.reports]
    assert steps == [2]


def test_short_steps_travel_together_and_long_ones_each_alone(alone: Peers) -> None:
    fast = told_of(Reports(alone, StopRequest(), lambda: False), 1000)
    assert [r.step for told in fast for r in told.reports] == list(range(1, 1001))
    assert max(len(told.reports) for told in fast) == MOST_STEPS
    slow = Reports(alone, StopRequest(), lambda: False)
    for step in range(1, 4):
        time.sleep(1.2 * BEAT_S)
        assert all(len(told.reports) == 1 for told in made(slow, step))


def test_a_pause_does_not_make_slow_steps_wait_for_each_other(alone: Peers) -> None:
    """All is asked for before an evaluation or a save: nothing of how long steps take is to be learnt from that."""
    slow = Reports(alone, StopRequest(), lambda: False)
    for step in range(1, 4):
        time.sleep(1.2 * BEAT_S)
        made(slow, step)
        list(slow.rest())
    made(slow, 4)
    assert [r.step for told in made(slow, 5) for r in told.reports] == [4]


def test_sums_belong_to_their_steps(alone: Peers) -> None:
    for told in told_of(Reports(alone, StopRequest(), lambda: False), 200):
        assert list(told.loss_sums) == [float(r.step) for r in told.reports]
        assert set(told.waited_s) <= {0.5}


def test_a_signal_and_the_clock_are_heard_of(alone: Peers) -> None:
    stop = StopRequest()
    reports = Reports(alone, stop, lambda: True)
    stop._note(signal.SIGTERM, None)
    assert {(told.stop, told.save_due) for told in told_of(reports, 3)} == {("SIGTERM", True)}


def test_a_rank_alone_needs_no_process_group(alone: Peers) -> None:
    assert not dist.is_initialized()
    pending = alone.start_sum([torch.tensor(1.5)], [2.0])
    assert pending.is_ready() and pending.result() == [1.5, 2.0]


def test_before_an_end_by_an_error_a_rank_alone_tells_all_its_steps(alone: Peers) -> None:
    reports = Reports(alone, StopRequest(), lambda: False)
    told = [each for step in range(1, 11) for each in made(reports, step)]
    steps = [r.step for each in (*told, *reports.known()) for r in each.reports]
    assert steps == list(range(1, 11))


def test_what_is_not_written_down_yet_when_an_error_comes_is_untold(alone: Peers) -> None:
    """An error may come from a signal, between any two lines: also where something was just received."""
    reports = Reports(alone, StopRequest(), lambda: False)
    made(reports, 1)
    reports.add(report(2))
    next(reports.exchange())
    assert [r.step for r in reports.untold()] == [1, 2]
    reports.heard()
    assert [r.step for r in reports.untold()] == [2]


TWO_RANKS = """
import contextlib, json, os, sys, torch, torch.distributed as dist
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.reports import Reports
from orchestrator.worker.world import World
from tests.worker.test_reports import made

rank, store, num_steps = int(sys.argv[1]), dist.FileStore(sys.argv[2], 2), int(sys.argv[3])
torch.set_num_threads(1)
with World(rank, 2, rank, 2, 0).connected(torch.device("cpu"), store=store) as peers:
    reports = Reports(peers, StopRequest(), lambda: False)
    heard = [told for step in range(1, num_steps + 1) for told in made(reports, step)]
    if rank == 1:
        os._exit(0)
    with contextlib.suppress(RuntimeError):
        for told in reports.rest():
            heard.append(told)
        sys.exit("nothing was missed of a rank that is gone")
    print(json.dumps([r.step for told in heard for r in told.reports] + [r.step for r in reports.untold()]), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("num_steps", [1, 5], ids=["with a sum under way", "with steps that wait"])
def test_what_was_not_heard_when_another_rank_died_is_still_there_to_be_told(num_steps: int, tmp_path: Path) -> None:
    """Else the checkpoint that is saved then holds steps that no journal knows, and a relaunch makes them no more."""
    words = [[sys.executable, "-c", TWO_RANKS, str(rank), str(tmp_path / "store"), str(num_steps)] for rank in (1, 0)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    other = subprocess.Popen(words[0], env=env)
    done = subprocess.run(words[1], env=env, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    assert other.wait(timeout=60) == 0
    assert json.loads(done.stdout) == list(range(1, num_steps + 1))
