"""What the ranks tell each other about their steps: summed in the background, and read a step late.

Losses, waits and votes of several steps travel together in one small all-reduce, so that short steps do not wait for
it: about every BEAT_S, after as many steps on every rank, by rank 0's measure. It is sent after one step and read after
the next one. Decisions rest on nothing else, so every rank takes the same ones at the same step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from orchestrator.worker.preemption import StopRequest, agreed_signal
from orchestrator.worker.world import Peers, PendingSum

BEAT_S = 0.05
"""Seconds between two exchanges, about: a request to stop is heard within this and two steps."""
MOST_STEPS = 64
"""Steps between two exchanges at the most."""


@dataclass(frozen=True, slots=True)
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


@dataclass
class Reports:
    """The reports of one rank on their way to all. Every method is called after the same step on every rank."""

    peers: Peers
    stop: StopRequest
    save_due_by_clock: Callable[[], bool]
    _waiting: list[StepReport] = field(default_factory=list, init=False)
    _sent: tuple[list[StepReport], PendingSum] | None = field(default=None, init=False)
    _beat: int = field(default=1, init=False)
    _sent_at: float = field(default_factory=time.perf_counter, init=False)

    def add(self, report: StepReport) -> Exchanged | None:
        """Take the report of a step; what was sent after an earlier one, if anything was."""
        self._waiting.append(report)
        told = self._receive()
        if len(self._waiting) >= self._beat:
            self._send()
        return told

    def rest(self) -> tuple[Exchanged, ...]:
        """All that has not been read yet, and the votes of this very moment. Waits for the other ranks."""
        told = self._receive()
        self._send()
        last = self._receive()
        return tuple(exchanged for exchanged in (told, last) if exchanged is not None)

    def known(self) -> Exchanged | None:
        """What was sent and has arrived: for an end in the middle, when other ranks may be gone. Waits for nobody."""
        return self._receive() if self._sent is not None and self._sent[1].is_ready() else None

    def _send(self) -> None:
        reports, self._waiting = self._waiting, []
        leads = self.peers.world.rank == 0
        votes = [float(leads and self.save_due_by_clock()), float(leads and self._next_beat(len(reports)))]
        numbers = [*(report.waited_s for report in reports), *votes, *self.stop.as_votes()]
        self._sent = (reports, self.peers.start_sum([report.loss_sum for report in reports], numbers))

    def _next_beat(self, num_steps: int) -> int:
        """Steps until the next exchange: as many as fill BEAT_S by the time of the last `num_steps`."""
        now = time.perf_counter()
        elapsed_s, self._sent_at = now - self._sent_at, now
        return max(1, min(round(BEAT_S / elapsed_s * num_steps), MOST_STEPS)) if num_steps else self._beat

    def _receive(self) -> Exchanged | None:
        if self._sent is None:
            return None
        reports, pending = self._sent
        self._sent = None
        numbers = pending.result()
        size = len(reports)
        save_votes, beat, *votes = numbers[2 * size :]
        self._beat = int(beat)
        return Exchanged(
            reports=tuple(reports),
            loss_sums=tuple(numbers[:size]),
            waited_s=tuple(numbers[size : 2 * size]),
            save_due=save_votes > 0,
            stop=agreed_signal(votes),
        )
