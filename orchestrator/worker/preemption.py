"""A signal sets a flag; the loop looks at it between steps. Standard library only: it comes before torch.

Slurm, torchrun and people ask a rank to end by a signal. All ranks agree first (the flag travels in their exchange of
reports, about every 0.5 s), then they save, then rank 0 leaves a file that says so, and everyone ends with status 0.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

STOP_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGHUP, signal.SIGQUIT),
)
"""What asks a rank to save and end: everything that torchrun is told to forward."""
DEADLINE = "deadline"
"""What asks for the end when no signal does: the time that the job has left is needed for the end itself."""
_REASONS = (*(number.name for number in STOP_SIGNALS), DEADLINE)
NUM_VOTES = len(_REASONS)


class StopRequest:
    """Which of STOP_SIGNALS have arrived, each any number of times, and whether the job's time is nearly up."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.time_is_up: Callable[[], bool] = lambda: False
        """Asked anew each time; see `Deadline`."""

    def install(self) -> None:
        """Handle STOP_SIGNALS from now on. Call it in the main thread, before anything slow."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._seen.add(number)

    @property
    def is_set(self) -> bool:
        """True once a signal has arrived on this rank, or it finds its time up. Other ranks may not know of it yet."""
        return bool(self._seen) or self.time_is_up()

    def as_votes(self) -> list[float]:
        """One number for each of STOP_SIGNALS, 1.0 where it has arrived, and one for DEADLINE: summed over ranks,
        everyone knows the same."""
        return [*(float(number in self._seen) for number in STOP_SIGNALS), float(self.time_is_up())]


def agreed_stop(votes: Sequence[float]) -> str | None:
    """The name of the first of STOP_SIGNALS that any rank has seen, else DEADLINE where one finds its time up; None for
    neither. From votes summed over all ranks."""
    return next((reason for reason, vote in zip(_REASONS, votes, strict=True) if vote > 0), None)


@contextlib.contextmanager
def signals_kept_from_children() -> Iterator[None]:
    """Processes forked in this block never get STOP_SIGNALS: they inherit the mask that blocks them.

    Slurm signals every process of a step and a terminal its whole foreground group; loader processes must outlive
    that, since the step under way still needs them. They end when the rank tells them to, or dies.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
