"""What an attempt leaves behind, as values: what ranks, supervisors, the driver and Slurm say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.errors import NodesFailed, NoRoom
from orchestrator.hang import Hang
from orchestrator.job.verdict import OutOfMemory

NO_ROOM = NoRoom.__name__
"""The type of a rank's error that means: a disk was full."""
NODES_FAILED = NodesFailed.__name__
"""The type of every rank's error where the preflight has found nodes that fall behind."""

JobEnd = Literal["cancelled", "preempted", "time_limit"]
"""Why a job is about to end, or has: by a person, for another job's sake, or because its time is up."""


@dataclass(frozen=True)
class RankError:
    """error-<rank>.json: what a rank said itself."""

    rank: int
    kind: str
    message: str
    time: float
    memory: OutOfMemory | None = None
    """Present when its memory ran out."""
    step: int | None = None
    """The step that it was at; None before the first one."""
    nodes: tuple[str, ...] = ()
    """Those that fell behind in the preflight, where that is the error."""


@dataclass(frozen=True)
class NodeReport:
    """node-<name>.json at the end of an attempt; `state` is None where a node never wrote one."""

    name: str
    state: str | None = None
    failed_check: str | None = None
    exit_code: int | None = None
    asked: str | None = None
    """The signal by which its supervisor was asked to stop."""
    failed_ranks: tuple[tuple[int, int], ...] = ()
    """(rank, exit code) of the ranks that ended by themselves, torchrun's first one in front; < 0 is a signal."""
    oom_kills: int = 0
    """Processes that the node's kernel killed meanwhile for want of host memory, perhaps another job's."""
    hang: Hang | None = None
    """Because of which the supervisor ended its ranks."""
    silent: Hang | None = None
    """The one of its ranks that hung first, where all were silent for too long in the end; it may wait for another
    node's."""

    @property
    def was_cut_off(self) -> bool:
        """Whether its supervisor ended without a word, and without having been asked to."""
        return self.state not in (None, "ended") and self.asked is None


@dataclass(frozen=True)
class Evidence:
    """All that an attempt left behind, and what its driver saw."""

    exit_code: int
    nodes: tuple[NodeReport, ...]
    gpus_per_node: int
    is_command: bool = False
    """The recipe is a command without a session: its end is what it says itself."""
    opens_session: bool = False
    """The recipe is a command whose session leaves done.json or stop.json."""
    done: dict[str, Any] | None = None
    stop: dict[str, Any] | None = None
    errors: tuple[RankError, ...] = ()
    asked: str | None = None
    """The signal by which the driver was asked to stop; Slurm may ask the nodes alone."""
    killed_nodes: tuple[str, ...] = ()
    lost_nodes: tuple[str, ...] = ()
    """Nodes that the allocation had when the attempt began and has no more, or that fell silent."""
    silent_nodes: tuple[str, ...] = ()
    """Nodes whose supervisor had not been heard of for a while when the step ended, by the driver's clock."""
    job_end: JobEnd | None = None
    no_room: str | None = None
    """What the run directory's file system said when something was to be written after an attempt that did not end
    well; None where there was room. Ranks and supervisors could not write down what befell them then."""

    @property
    def met_deadline(self) -> bool:
        """Whether the ranks stopped by themselves, and had saved, because the job's time was nearly up."""
        return self.stop is not None and bool(self.stop.get("deadline"))

    @property
    def failed_unasked(self) -> bool:
        """Whether a node failed before anybody asked it to stop. The others are then asked because of it."""
        cut_off = self.exit_code != 0 and any(node.was_cut_off for node in self.nodes)
        failed = any((node.exit_code or node.hang) and not node.asked for node in self.nodes)
        return bool(self.killed_nodes or self.lost_nodes) or cut_off or failed

    @property
    def asked_by(self) -> str | None:
        """What asked the run to stop, if that came first."""
        if self.asked is None and self.failed_unasked:
            return None
        return self.asked or next((node.asked for node in self.nodes if node.asked), None)
