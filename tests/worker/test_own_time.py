"""The stop-watch of a rank's own work: what it counts, by the host's clock and by events that a device passes late."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from orchestrator.worker import own_time
from orchestrator.worker.own_time import DeviceTime, HostTime, OwnTime, own_time_of
from orchestrator.worker.stragglers import RankTime
from orchestrator.worker.world import Peers, World
from tests.worker.test_pulse import Clock


def window(own: OwnTime, passes: Callable[[float], None]) -> None:
    """Two micro-steps of 1 s for the fetch, 10 s forward and 100 s backward; then 1000 s of other work."""
    own.begin()
    for index in range(2):
        passes(1)
        own.fetched()
        passes(10)
        own.forwarded()
        passes(100)
        if index == 0:
            own.computed()
    passes(1000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(own_time, "perf_counter", clock)
    return clock


def test_all_counts_but_the_backward_pass_in_which_ranks_meet_and_what_follows_it(clock: Clock) -> None:
    own = HostTime()
    window(own, clock.passes)
    window(own, clock.passes)
    assert own.take() == RankTime(2, 4.0, 240.0)
    assert own.take() == RankTime()


def test_a_forward_pass_that_may_wait_for_others_does_not_count(clock: Clock) -> None:
    own = HostTime(first_forward_waits=True)
    window(own, clock.passes)
    window(own, clock.passes)
    assert own.take() == RankTime(2, 4.0, 220.0)


def test_what_has_passed_until_ranks_met_does_not_count(clock: Clock) -> None:
    own = HostTime()
    own.begin()
    clock.passes(5)
    own.met()
    clock.passes(1)
    own.fetched()
    assert own.take() == RankTime(1, 1.0, 0.0)


class Device:
    """A GPU that works off what is queued, up to where it is told to be; each piece of work has its length."""

    def __init__(self) -> None:
        self.queued_s = self.done_s = 0.0

    def works(self, seconds: float) -> None:
        self.queued_s += seconds

    def event(self) -> Mark:
        return Mark(self)


class Mark:
    """What torch.cuda.Event is for a GPU: to ask for the time before it was passed is an error."""

    def __init__(self, device: Device) -> None:
        self.device, self.at_s = device, float("inf")

    def record(self) -> None:
        self.at_s = self.device.queued_s

    def query(self) -> bool:
        return self.at_s <= self.device.done_s

    def elapsed_time(self, end_event: Mark) -> float:
        assert self.query() and end_event.query()
        return 1000 * (end_event.at_s - self.at_s)


def test_on_a_device_steps_are_known_when_it_has_passed_them_and_the_host_waits_for_none() -> None:
    device = Device()
    own = DeviceTime(device.event)
    for _ in range(3):
        window(own, device.works)
    assert own.take() == RankTime()
    device.done_s = 1222 + 122 - 0.5
    assert own.take() == RankTime(1, 2.0, 120.0)
    assert own.take() == RankTime()
    device.done_s = device.queued_s
    assert own.take() == RankTime(2, 4.0, 240.0)


def test_a_window_in_which_nothing_counts_is_a_step_all_the_same() -> None:
    device = Device()
    own = DeviceTime(device.event)
    own.begin()
    window(own, device.works)
    device.done_s = device.queued_s
    assert own.take() == RankTime(2, 2.0, 120.0)


@pytest.mark.parametrize(
    ("world_size", "model", "kind", "compute_s"),
    [
        (1, torch.nn.Linear(1, 1), OwnTime, 0.0),
        (2, torch.nn.Linear(1, 1), HostTime, 120.0),
        (2, torch.nn.BatchNorm1d(1), HostTime, 110.0),
    ],
)
def test_a_rank_alone_measures_nothing_and_with_buffers_the_first_forward_pass_may_wait(
    clock: Clock, world_size: int, model: torch.nn.Module, kind: type[OwnTime], compute_s: float
) -> None:
    own = own_time_of(Peers(World(0, world_size, 0, world_size, 0), torch.device("cpu")), model)
    window(own, clock.passes)
    assert type(own) is kind and own.take().compute_s == compute_s
