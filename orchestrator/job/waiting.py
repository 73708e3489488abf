"""While the workers train: signals are handed on, the forwarder kept running, and lost nodes noticed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from signal import SIGTERM

from orchestrator.heartbeat import Heartbeat
from orchestrator.job.forwarder import Forwarder
from orchestrator.job.node_watch import NodeWatch
from orchestrator.job.slurm_job import JobNow
from orchestrator.job.step import Step
from orchestrator.processes import next_signal
from orchestrator.talk import tell

_LOOK_S = 0.5
_ASK_AGAIN_SHARE, _ASK_AGAIN_AT_LAST_S = 0.1, 30.0
"""Slurm is asked again when so much more time has passed since something was first amiss: with each look in the first
seconds, and at last so often."""
_LOOKS_WITHOUT = 10
"""Looks in a row that find no directory, before it counts as gone: file systems have their moments."""


@dataclass
class Watch:
    """What the driver looks at twice a second while a step runs."""

    step: Step
    forwarder: Forwarder
    heartbeat: Heartbeat
    nodes: NodeWatch
    job_now: Callable[[], JobNow | None]
    """What Slurm says of the job; None where there is none, or no answer."""
    unreached: Callable[[], Collection[str]]
    """The job's nodes that do not answer Slurm."""
    is_cancelled: Callable[[], bool]
    """Whether a person has asked for the end, perhaps when there was no step to hear the signal."""
    clock: Callable[[], float] = time.monotonic
    asked: str | None = field(default=None, init=False)
    """The first signal that asked this driver for the end."""
    lost: tuple[str, ...] = field(default=(), init=False)
    """Nodes for which the ranks were waited for in vain."""
    _amiss: tuple[frozenset[str], bool] = field(default=(frozenset(), False), init=False)
    """Nodes that are silent or have failed, and whether all stand still; and since when it is so."""
    _amiss_since: float = field(default=0.0, init=False)
    _ask_at: float = field(default=0.0, init=False)
    _looks_without: int = field(default=0, init=False)

    def wait(self) -> int:
        """Wait for the step's end; its exit code. Only the first signal is handed on."""
        while (exit_code := self.step.poll()) is None:
            self.forwarder.keep_running()
            self.heartbeat.beat()
            number = next_signal(_LOOK_S)
            if number is None and self.is_cancelled():
                number = SIGTERM
            if number is not None and self.asked is None:
                self.asked = number.name
                tell(f"driver: got {self.asked}: asking the ranks to save and end")
                self.step.signal(number)
            self._look_at_nodes()
            self._look_for_directory()
        return exit_code

    def _look_for_directory(self) -> None:
        """End the step when the run directory was removed under it: nothing can be saved any more."""
        self._looks_without = 0 if self.heartbeat.has_place else self._looks_without + 1
        if self._looks_without == _LOOKS_WITHOUT:
            tell("driver: the run directory is gone: ending the attempt")
            self.step.kill()

    def _look_at_nodes(self) -> None:
        """End the step when ranks are waited for in vain. Slurm is asked only where something is amiss.

        A node is lost that is silent, or said to have failed, and that the job has no more; and where nobody is at work
        any more, a node that does not answer Slurm: whether it comes back is not known until SlurmdTimeout has passed.
        """
        seen = self.nodes.look()
        suspects, at = frozenset((*seen.silent, *self.step.failed_nodes())), self.clock()
        if self._amiss != (suspects, seen.stand_still):
            self._amiss, self._amiss_since, self._ask_at = (suspects, seen.stand_still), at, at
        if self.lost or not (suspects or seen.stand_still) or at < self._ask_at:
            return
        passed_s = _ASK_AGAIN_SHARE * (at - self._amiss_since)
        self._ask_at = at + min(passed_s, _ASK_AGAIN_AT_LAST_S)
        now = self.job_now()
        if now is None or not now.nodes:
            return
        gone = suspects - frozenset(now.nodes)
        if not gone and seen.stand_still:
            gone = frozenset(self.unreached()) & frozenset(self.nodes.files)
        self.lost = tuple(sorted(gone))
        if self.lost:
            tell(f"driver: lost {', '.join(self.lost)}: ending the attempt on the nodes that are left")
            self.step.kill(without=self.lost)
