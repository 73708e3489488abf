"""When a run stops by itself, so that it has saved before its job's time is up.

Slurm's warning is a signal with a number that was chosen before anybody knew how long a save takes, and short jobs have
none. A rank knows when its job ends, how long saves took and how long steps take: rank 0 decides by that, and its vote
travels with those for signals. A run with little time in each job has to get on: no attempt is stopped before it has
made a step, nor with more than half of the time left that it had when its steps began.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.last_save import END_S, SAVES
from orchestrator.pulse import Phase
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.world import Peers

_RECENT_STEPS = 16
_STEPS = 3
"""A vote is sent after one step, read after the next one, and may have come just too late for the one before. For the
exchange itself, which comes about every 0.5 s, there is END_S."""


def margin_s(*, save_s: float, step_s: float, patience_s: float) -> float:
    """Seconds before the end of the job at which no other step is to begin.

    `save_s`: the longest save so far, 0 for none; then it is taken to need what the site leaves for it when it ends a
    job, `patience_s`. `step_s`: the longest of the last steps.
    """
    return (SAVES * save_s or patience_s) + _STEPS * step_s + END_S


@dataclass
class Deadline:
    """The end of the job, on one rank. Rank 0 looks at the clock; in an evaluation all go by what it says."""

    ends_at: float | None = None
    """Seconds since the epoch, by the scheduler's clock; None for no end that anybody knows."""
    patience_s: float = 0.0
    _leads: bool = field(default=False, init=False)
    _pulse: Pulse = field(default_factory=Pulse, init=False)
    _step_times_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS), init=False)
    _is_up_at: float = field(default=math.inf, init=False)
    _most_s: float = field(default=0.0, init=False)

    def begin(self, pulse: Pulse, *, leads: bool) -> None:
        """Steps begin now. `pulse` says how long saves take; one rank `leads`."""
        self._pulse, self._leads = pulse, leads
        if self.ends_at is not None:
            self._most_s = max(0.0, (self.ends_at - time.time()) / 2)

    def stepped(self, time_s: float) -> None:
        """A step of this attempt was made, in so many seconds."""
        self._step_times_s.append(time_s)

    def is_near(self) -> bool:
        """Whether this rank finds that the time that is left is needed for the end. Takes 1.5 microseconds."""
        return self._left_s() <= 0 if self._leads else time.monotonic() >= self._is_up_at

    @contextlib.contextmanager
    def shared(self, peers: Peers) -> Iterator[None]:
        """In this block every rank goes by the time that rank 0 has now. A collective where there is an end."""
        if self.ends_at is not None and self._step_times_s:
            left_s = peers.from_first(round(1000 * self._left_s())) / 1000
            self._is_up_at = time.monotonic() + left_s
        yield
        self._is_up_at = math.inf

    def _left_s(self) -> float:
        """Seconds until the end has to begin."""
        if self.ends_at is None or not self._step_times_s:
            return math.inf
        save_s, step_s = self._pulse.longest_s(Phase.CHECKPOINT), max(self._step_times_s)
        wanted_s = margin_s(save_s=save_s, step_s=step_s, patience_s=self.patience_s)
        return self.ends_at - time.time() - min(wanted_s, self._most_s)
