"""What a rank works on its own in a step, before it meets the others in the exchange of gradients.

Counted are the wait for its micro-batches, its forward passes, and the backward passes of micro-steps that exchange
nothing. The last backward pass is not: DDP exchanges gradients within it, so a rank may wait for others there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

import torch

from orchestrator.worker.stragglers import RankTime
from orchestrator.worker.world import Peers


class OwnTime:
    """A stop-watch that the loop pushes. This one measures nothing: a rank alone is slower than nobody."""

    def __init__(self, *, first_forward_waits: bool = False) -> None:
        """`first_forward_waits`: in a window's first forward pass others may be waited for, so it does not count."""
        self._first_forward_waits = self._waits = first_forward_waits

    def begin(self) -> None:
        """A window begins; its first micro-batch is asked for."""
        self._waits = self._first_forward_waits

    def fetched(self) -> None:
        """What has passed was a wait for data."""

    def forwarded(self) -> None:
        """What has passed was a forward pass, and a backward pass comes."""
        if self._waits:
            self._waits = False
            self.met()
        else:
            self.computed()

    def computed(self) -> None:
        """What has passed was a backward pass without an exchange."""

    def met(self) -> None:
        """What has passed does not count: others may have been waited for, or it was no work of a step."""

    def take(self) -> RankTime:
        """What was measured since the last call, as far as it is known. Between two steps."""
        return RankTime()


class HostTime(OwnTime):
    """By the host's clock: on a CPU, work is done when its call returns."""

    def __init__(self, *, first_forward_waits: bool = False) -> None:
        super().__init__(first_forward_waits=first_forward_waits)
        self._num_steps, self._data_s, self._compute_s, self._mark = 0, 0.0, 0.0, perf_counter()

    def begin(self) -> None:
        super().begin()
        self._num_steps += 1
        self._mark = perf_counter()

    def fetched(self) -> None:
        now = perf_counter()
        self._data_s += now - self._mark
        self._mark = now

    def computed(self) -> None:
        now = perf_counter()
        self._compute_s += now - self._mark
        self._mark = now

    def met(self) -> None:
        self._mark = perf_counter()

    def take(self) -> RankTime:
        taken = RankTime(self._num_steps, self._data_s, self._compute_s)
        self._num_steps, self._data_s, self._compute_s = 0, 0.0, 0.0
        return taken


class Event(Protocol):
    """What is used of torch.cuda.Event."""

    def record(self) -> None: ...

    def query(self) -> bool: ...

    def elapsed_time(self, end_event: Any, /) -> float: ...


class DeviceTime(OwnTime):
    """By the GPU's clock: the host runs ahead of it, so marks are queued among its work and read when it has passed
    them. Nothing waits for that: steps that are still at work are read later.

    What the host waits for while the GPU is still at work is no wait: both marks of it are passed at once. The logic is
    tested with made-up events; it has not been run on a GPU yet.
    """

    def __init__(self, new_event: Callable[[], Event], *, first_forward_waits: bool = False) -> None:
        super().__init__(first_forward_waits=first_forward_waits)
        self._new_event = new_event
        self._steps: deque[list[tuple[bool, Event, Event]]] = deque()
        """By step, the stretches that count: whether it was a wait for data, its beginning, its end."""

    def begin(self) -> None:
        super().begin()
        self._steps.append([])
        self.met()

    def fetched(self) -> None:
        self._count(is_data=True)

    def computed(self) -> None:
        self._count(is_data=False)

    def met(self) -> None:
        self._mark = self._new_event()
        self._mark.record()

    def take(self) -> RankTime:
        taken = RankTime()
        while self._steps and all(end.query() for _, _, end in self._steps[0][-1:]):
            taken += RankTime(num_steps=1)
            for is_data, begin, end in self._steps.popleft():
                seconds = begin.elapsed_time(end) / 1000
                taken += RankTime(data_s=seconds) if is_data else RankTime(compute_s=seconds)
        return taken

    def _count(self, *, is_data: bool) -> None:
        begin = self._mark
        self.met()
        self._steps[-1].append((is_data, begin, self._mark))


def own_time_of(peers: Peers, model: torch.nn.Module) -> OwnTime:
    """The stop-watch of this rank, whose `model` is not distributed yet.

    Before a window's first forward pass DDP sends rank 0's buffers to all (of BatchNorm, say), and a rank may wait for
    others there: with buffers, that pass does not count.
    """
    if peers.world.world_size == 1:
        return OwnTime()
    waits = any(True for _ in model.buffers())
    if peers.device.type == "cuda":
        return DeviceTime(_timing_event, first_forward_waits=waits)
    return HostTime(first_forward_waits=waits)


def _timing_event() -> Event:
    event: Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event
