"""What ranks tell each other about their steps: nothing is lost, nothing twice, and all decide at the same step."""

from __future__ import annotations

import signal
import time

import pytest
import torch
import torch.distributed as dist

from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.reports import MOST_STEPS, Exchanged, Reports, StepReport
from orchestrator.worker.world import Peers, World


@pytest.fixture
def alone() -> Peers:
    return Peers(World(0, 1, 0, 1, 0), torch.device("cpu"))


def report(step: int) -> StepReport:
    loss = torch.tensor(float(step), dtype=torch.float64)
    return StepReport(step, 8 * step, 8, 8, 0.1, loss, None, waited_s=0.5, time_s=0.01, ended_at_ms=step)


def told_of(reports: Reports, num_steps: int) -> list[Exchanged]:
    told = [found for step in range(1, num_steps + 1) if (found := reports.add(report(step))) is not None]
    return [*told, *reports.rest()]


def test_every_step_is_told_once_in_order_and_none_before_the_next_one_is_made(alone: Peers) -> None:
    reports = Reports(alone, StopRequest(), lambda: False)
    assert reports.add(report(1)) is None
    assert [r.step for r in reports.add(report(2)).reports] == [1]  # type: ignore[union-attr]
    steps = [r.step for told in (*told_of(reports, 0), *reports.rest()) for r in told.reports]
    assert steps == [2]


def test_short_steps_travel_together_and_long_ones_each_alone(alone: Peers) -> None:
    fast = told_of(Reports(alone, StopRequest(), lambda: False), 1000)
    assert [r.step for told in fast for r in told.reports] == list(range(1, 1001))
    assert max(len(told.reports) for told in fast) == MOST_STEPS
    slow = Reports(alone, StopRequest(), lambda: False)
    for step in range(1, 4):
        time.sleep(0.06)
        told = slow.add(report(step))
        assert told is None or len(told.reports) == 1


def test_a_pause_does_not_make_slow_steps_wait_for_each_other(alone: Peers) -> None:
    """All is asked for before an evaluation or a save: nothing of how long steps take is to be learnt from that."""
    slow = Reports(alone, StopRequest(), lambda: False)
    for step in range(1, 4):
        time.sleep(0.06)
        slow.add(report(step))
        slow.rest()
    slow.add(report(4))
    assert [r.step for r in slow.add(report(5)).reports] == [4]  # type: ignore[union-attr]


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
