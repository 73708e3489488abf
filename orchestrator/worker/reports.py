"""What the ranks tell each other about their steps: summed in the background, and read a step late.

Losses, waits, votes and each rank's own time of several steps travel together in one small all-reduce, so that short
steps do not wait for it: about every BEAT_S, after as many steps on every rank, by rank 0's measure. It is sent after
one step and read after the next one. Decisions rest on nothing else, so every rank takes the same ones at one step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from orchestrator.worker.own_time import OwnTime
from orchestrator.worker.preemption import StopRequest, agreed_stop
from orchestrator.worker.stragglers import RankTime
from orchestrator.worker.world import Peers, PendingSum

BEAT_S = 0.5
"""Seconds between two exchanges, about: a request to stop is heard within this and two steps. Each delays the exchange
of gradients that it meets, and is followed by what rank 0 writes down: at 0.2 s, steps of 8 and of 40 ms on two ranks
of two cores took 3 % longer."""
MOST_STEPS = 128
"""Steps between two exchanges at the most."""
NUMBERS_OF_A_RANK = 4
"""Of its own time: how many steps, seconds of waiting for data, seconds of computing; and `exposed_s`, or -1. Of a
thousand ranks, 32 kB."""

_UNKNOWN = -1.0


@dataclass(slots=True)
class StepReport:
    """One step as this rank saw it; once all ranks have exchanged it, sums are over all of them."""

    step: int
    consumed_samples: int
    num_samples: int
    count: int
    """What counted in the window, on all ranks; 0 when nothing did."""
    lr: float
    loss_sum: torch.Tensor
    """This rank's: shape (), on the device."""
    grad_norm: torch.Tensor | None
    """Before clipping, the same on every rank; None where it was not measured."""
    waited_s: float
    time_s: float
    """Seconds since the step before."""
    ended_at_ms: int


@dataclass(frozen=True)
class Exchanged:
    """What all ranks know: the same numbers, hence the same decisions."""

    reports: tuple[StepReport, ...]
    loss_sums: tuple[float, ...]
    """Over all ranks, by report."""
    waited_s: tuple[float, ...]
    """Summed over ranks, by report."""
    save_due: bool
    stop: str | None
    own_times: tuple[RankTime, ...] = ()
    """What each rank worked on its own in about these steps, by rank: rank 0 keeps it, and a rank alone has none."""
    exchange_s: float | None = None
    """Seconds that the exchange of gradients took after the last backward pass, in the last step of which all ranks
    know: rank 0 keeps it."""


@dataclass
class Reports:
    """The reports of one rank on their way to all. Every method is called after the same step on every rank."""

    peers: Peers
    stop: StopRequest
    save_due_by_clock: Callable[[], bool]
    own_time: OwnTime = field(default_factory=OwnTime)
    exposed_s: Callable[[], float | None] = lambda: None
    """As `worker.exchange.Exchange` has it."""
    _waiting: list[StepReport] = field(default_factory=list, init=False)
    _sent: tuple[list[StepReport], PendingSum] | None = field(default=None, init=False)
    _beat: int = field(default=1, init=False)
    _sent_at: float = field(default_factory=time.perf_counter, init=False)

    def add(self, report: StepReport) -> None:
        """Take the report of a step: from now on it is in `untold` until it is heard of."""
        self._waiting.append(report)

    def exchange(self) -> Iterator[Exchanged]:
        """After `add`: what was sent after an earlier step, if anything was. Then what waits is sent, if it is time."""
        yield from self._receive()
        if len(self._waiting) >= self._beat:
            self._send()

    def rest(self) -> Iterator[Exchanged]:
        """All that has not been read yet, and the votes of this very moment. Waits for the other ranks.

        One after the other: where another rank is gone by the second, the first has been heard.
        """
        yield from self._receive()
        self._send()
        yield from self._receive()

    def known(self) -> Iterator[Exchanged]:
        """What can be read without other ranks, which may be gone: what has arrived; for a rank alone, everything."""
        if self.peers.world.world_size == 1:
            yield from self.rest()
        elif self._sent is not None and self._sent[1].is_ready():
            yield from self._receive()

    def untold(self) -> list[StepReport]:
        """The reports of which nothing has been heard yet."""
        return [*(() if self._sent is None else self._sent[0]), *self._waiting]

    def _send(self) -> None:
        reports = self._waiting
        leads = self.peers.world.rank == 0
        votes = [float(leads and self.save_due_by_clock()), float(leads and self._next_beat(len(reports)))]
        waits = (report.waited_s for report in reports)
        numbers = [*waits, *self._own_numbers(), *votes, *self.stop.as_votes()]
        self._sent = (reports, self.peers.start_sum([report.loss_sum for report in reports], numbers))
        self._waiting = []

    def _own_numbers(self) -> list[float]:
        """This rank's own time in its place among those of all ranks, zeros in theirs: summed, all know each."""
        numbers = [0.0] * self._num_own
        if numbers:
            mine, exposed_s, first = self.own_time.take(), self.exposed_s(), NUMBERS_OF_A_RANK * self.peers.world.rank
            of_rank = [float(mine.num_steps), mine.data_s, mine.compute_s, _UNKNOWN if exposed_s is None else exposed_s]
            numbers[first : first + NUMBERS_OF_A_RANK] = of_rank
        return numbers

    @property
    def _num_own(self) -> int:
        world_size = self.peers.world.world_size
        return NUMBERS_OF_A_RANK * world_size if world_size > 1 else 0

    def _next_beat(self, num_steps: int) -> int:
        """Steps until the next exchange: as many as fill BEAT_S by the time of the last `num_steps`."""
        now = time.perf_counter()
        elapsed_s, self._sent_at = now - self._sent_at, now
        return max(1, min(round(BEAT_S / elapsed_s * num_steps), MOST_STEPS)) if num_steps else self._beat

    def heard(self) -> None:
        """What was received last is written down: it is untold no more. Going on with an iterator says the same."""
        self._sent = None

    def _receive(self) -> Iterator[Exchanged]:
        """What was sent, if anything was."""
        if self._sent is None:
            return
        reports, pending = self._sent
        numbers = pending.result()
        size = len(reports)
        votes_at = 2 * size + self._num_own
        save_votes, beat, *votes = numbers[votes_at:]
        of_ranks = numbers[2 * size : votes_at] if self.peers.world.rank == 0 else []
        self._beat = int(beat)
        yield Exchanged(
            reports=tuple(reports),
            loss_sums=tuple(numbers[:size]),
            waited_s=tuple(numbers[size : 2 * size]),
            save_due=save_votes > 0,
            stop=agreed_stop(votes),
            own_times=_own_times(of_ranks),
            exchange_s=_exchange_s(of_ranks[NUMBERS_OF_A_RANK - 1 :: NUMBERS_OF_A_RANK]),
        )
        self.heard()


def _own_times(numbers: list[float]) -> tuple[RankTime, ...]:
    ranks = range(0, len(numbers), NUMBERS_OF_A_RANK)
    return tuple(RankTime(round(numbers[at]), numbers[at + 1], numbers[at + 2]) for at in ranks)


def _exchange_s(by_rank: list[float]) -> float | None:
    """The last rank to arrive waits for nobody: what it waits is the exchange's own. None unless every rank knows."""
    least = min(by_rank, default=_UNKNOWN)
    return least if least >= 0 else None
