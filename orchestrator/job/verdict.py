"""How an attempt ended and why: one pure function of what it left behind.

torchrun turns every exit status of a rank into 1, after a clean save too. So the outcome is read from files, and the
cause from whoever failed first: errors of ranks that only noticed that another one was gone come last.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from orchestrator.out_of_memory import OUT_OF_MEMORY, says_out_of_memory

Outcome = Literal["done", "stopped", "failed"]
NUM_LAST_LINES = 5
SILENT_S = 15.0
"""A supervisor that has not written for this long, three heartbeats, is silent."""

PEER_LOST = "PeerLost"
"""The type of a rank's error that means: another rank ended first."""

_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b.*")
_TRACEBACK_HEAD = re.compile(r"\s*(Traceback \(most recent call last\):|File \".*\", line \d+.*|[~^ ]*\^[~^ ]*)")


@dataclass(frozen=True)
class OutOfMemory:
    """What a rank was working on when its memory ran out, as far as it is known; sizes in bytes."""

    micro_batch_size: int | None = None
    """Samples; None where a smaller micro-batch would not help, or nobody knows."""
    step: int | None = None
    peak_bytes: int | None = None
    capacity_bytes: int | None = None
    is_command: bool = False
    """It was in a recipe's own command, whose last line says it."""


@dataclass(frozen=True)
class RankError:
    """error-<rank>.json: what a rank said itself."""

    rank: int
    kind: str
    message: str
    time: float
    memory: OutOfMemory | None = None
    """Present when its memory ran out."""


@dataclass(frozen=True)
class NodeReport:
    """node-<name>.json at the end of an attempt; `state` is None where a node never wrote one."""

    name: str
    state: str | None = None
    failed_check: str | None = None
    heartbeat_at: float | None = None
    exit_code: int | None = None
    asked: str | None = None
    """The signal by which its supervisor was asked to stop."""
    failed_ranks: tuple[tuple[int, int], ...] = ()
    """(rank, exit code) of the ranks that ended by themselves, torchrun's first one in front; < 0 is a signal."""
    oom_kills: int = 0
    """Processes that the node's kernel killed meanwhile for want of host memory, perhaps another job's."""


@dataclass(frozen=True)
class Evidence:
    """All that an attempt left behind, and what its driver saw."""

    exit_code: int
    nodes: tuple[NodeReport, ...]
    gpus_per_node: int
    is_command: bool = False
    done: dict[str, Any] | None = None
    stop: dict[str, Any] | None = None
    errors: tuple[RankError, ...] = ()
    asked: str | None = None
    """The signal by which the driver was asked to stop; Slurm may ask the nodes alone."""
    killed_nodes: tuple[str, ...] = ()
    now: float = 0.0

    @property
    def failed_unasked(self) -> bool:
        """Whether a node failed before anybody asked it to stop. The others are then asked because of it."""
        return bool(self.killed_nodes) or any(node.exit_code and not node.asked for node in self.nodes)

    @property
    def asked_by(self) -> str | None:
        """What asked the run to stop, if that came first."""
        if self.asked is None and self.failed_unasked:
            return None
        return self.asked or next((node.asked for node in self.nodes if node.asked), None)


@dataclass(frozen=True)
class Verdict:
    """The contents of verdict.json, but for `final`, `then` and `ended_at`."""

    outcome: Outcome
    reason: str
    rank: int | None = None
    node: str | None = None
    last_lines: tuple[str, ...] = ()
    step: int | None = None
    metrics: dict[str, float] | None = None
    out_of_memory: OutOfMemory | None = None
    """Present when the memory of a rank's device did not suffice."""
    asked_by: str | None = None
    """The signal by which the run was asked to stop before it failed."""

    def as_json(self, *, ended_at: float, then: str | None = None) -> dict[str, Any]:
        """`then` is what the driver does next in the same job; without it the verdict is the job's final one."""
        told = {**asdict(self), "last_lines": list(self.last_lines)}
        return {**told, "final": then is None, "then": then, "ended_at": ended_at}


@dataclass(frozen=True)
class _Cause:
    reason: str
    rank: int | None = None
    node: str | None = None
    memory: OutOfMemory | None = None


def judge(evidence: Evidence, log_of: Callable[[int], str]) -> Verdict:
    """The verdict on an attempt; `log_of(rank)` is the end of that rank's log, and is asked of one rank at most."""
    done, stop = evidence.done, evidence.stop
    if done is not None:
        reason = f"trained to the end: step {done.get('step')}"
        return Verdict("done", reason, step=done.get("step"), metrics=done.get("metrics"))
    if stop is not None and not evidence.failed_unasked:
        reason = f"saved at step {stop.get('step')} after {stop.get('signal')}"
        return Verdict("stopped", reason, step=stop.get("step"))
    torchrun_failed = any(node.exit_code for node in evidence.nodes)
    if evidence.is_command and evidence.exit_code == 0 and not torchrun_failed:
        return Verdict("done", "the command ended with exit code 0 on every rank")
    verdict = _failed(_cause(evidence), log_of, is_command=evidence.is_command)
    return replace(verdict, step=None if stop is None else stop.get("step"), asked_by=evidence.asked_by)


def _failed(cause: _Cause, log_of: Callable[[int], str], *, is_command: bool) -> Verdict:
    lines = () if cause.rank is None else last_lines(log_of(cause.rank))
    reason, memory = cause.reason, cause.memory
    if reason.endswith("exit code 1") and (told := _error_line(lines)):
        reason = f"{reason}: {told}"
        memory = OutOfMemory(is_command=is_command) if says_out_of_memory(told) else None
    return Verdict("failed", reason, cause.rank, cause.node, lines, out_of_memory=memory)


def _cause(evidence: Evidence) -> _Cause:
    """The first of these that explains the failure."""
    return (
        _failed_check(evidence)
        or _out_of_memory(evidence)
        or _killed_node(evidence)
        or _killed_rank(evidence)
        or _told_by_rank(evidence)
        or _seen_by_torchrun(evidence)
        or _asked(evidence)
        or _silent_node(evidence)
        or _Cause(_ended(evidence))
    )


def _failed_check(evidence: Evidence) -> _Cause | None:
    for node in evidence.nodes:
        if node.failed_check:
            return _Cause(f"{node.name}: check of the {node.failed_check}", node=node.name)
    return None


def _out_of_memory(evidence: Evidence) -> _Cause | None:
    """A rank that said so: whatever befell others comes of it, or would come again."""
    told = [error for error in evidence.errors if error.kind == OUT_OF_MEMORY]
    first = min(told, key=lambda error: error.time, default=None)
    return None if first is None else replace(_of_rank(evidence, first.rank, f": {first.message}"), memory=first.memory)


def _killed_node(evidence: Evidence) -> _Cause | None:
    for name in evidence.killed_nodes:
        return _Cause(f"the supervisor of {name} was {_killed(evidence.exit_code)}", node=name)
    return None


def _killed_rank(evidence: Evidence) -> _Cause | None:
    """A rank that died of a signal wrote no error, but the others' errors come of it."""
    told = {error.rank for error in evidence.errors if error.kind != PEER_LOST}
    for rank, exit_code in _failed_ranks(evidence):
        if exit_code < 0 and exit_code != -signal.SIGTERM and rank not in told:
            return _of_rank(evidence, rank, f" was {_killed(exit_code, _kills_beside(evidence, rank))}")
    return None


def _kills_beside(evidence: Evidence, rank: int) -> int:
    """What the kernel killed for want of memory on the node of a rank."""
    node = rank // evidence.gpus_per_node
    return evidence.nodes[node].oom_kills if node < len(evidence.nodes) else 0


def _told_by_rank(evidence: Evidence) -> _Cause | None:
    first = min(evidence.errors, key=lambda error: (error.kind == PEER_LOST, error.time), default=None)
    return None if first is None else _of_rank(evidence, first.rank, f": {first.message}")


def _seen_by_torchrun(evidence: Evidence) -> _Cause | None:
    for rank, exit_code in _failed_ranks(evidence):
        ended = f"was {_killed(exit_code)}" if exit_code < 0 else f"ended with exit code {exit_code}"
        return _of_rank(evidence, rank, f" {ended}")
    return None


def _asked(evidence: Evidence) -> _Cause | None:
    if evidence.asked_by is None:
        return None
    missing = "the command left no stop.json" if evidence.is_command else "the ranks ended before they had saved"
    return _Cause(f"asked to stop ({evidence.asked_by}), but {missing}")


def _silent_node(evidence: Evidence) -> _Cause | None:
    """The supervisor that has been silent longest; one that never wrote counts only when none fell silent."""
    if evidence.exit_code == 0:
        return None
    alive = [node for node in evidence.nodes if node.state not in (None, "ended") and node.heartbeat_at is not None]
    silent = min(alive, key=lambda node: node.heartbeat_at or 0.0, default=None)
    if silent is not None and silent.heartbeat_at is not None and evidence.now - silent.heartbeat_at >= SILENT_S:
        since = time.strftime("%H:%M:%S", time.localtime(silent.heartbeat_at))
        return _Cause(f"the supervisor of {silent.name} is silent since {since}", node=silent.name)
    for node in evidence.nodes:
        if node.state is None:
            return _Cause(f"the supervisor of {node.name} did not start; see the job's log", node=node.name)
    return None


def _ended(evidence: Evidence) -> str:
    for node in evidence.nodes:
        if node.exit_code:
            return f"torchrun failed on {node.name}; see its log"
    if evidence.exit_code == 0:
        return "every rank ended with exit code 0, but rank 0 left no done.json"
    if evidence.exit_code < 0:
        return f"the step was {_killed(evidence.exit_code)}"
    return f"the step ended with exit code {evidence.exit_code}"


def _failed_ranks(evidence: Evidence) -> list[tuple[int, int]]:
    return [failed for node in evidence.nodes for failed in node.failed_ranks]


def _of_rank(evidence: Evidence, rank: int, what: str) -> _Cause:
    index = rank // evidence.gpus_per_node
    node = evidence.nodes[index].name if index < len(evidence.nodes) else None
    place = f"rank {rank}" if node is None else f"rank {rank} on {node}"
    return _Cause(f"{place}{what}", rank, node)


def _killed(exit_code: int, oom_kills: int = 0) -> str:
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    if hint and oom_kills:
        hint = " while the kernel killed for want of host memory: raise resources.memory, or lower loader.workers"
    return f"killed by {name}{hint}"


def _error_line(lines: tuple[str, ...]) -> str | None:
    return next((line for line in reversed(lines) if _ERROR_LINE.fullmatch(line)), None)


def last_lines(log: str, count: int = NUM_LAST_LINES) -> tuple[str, ...]:
    """The last lines of a log that say something: no blank ones, no frames of a trace-back."""
    told: list[str] = []
    in_frame = False
    for line in log.splitlines():
        is_head = bool(_TRACEBACK_HEAD.fullmatch(line))
        is_source = in_frame and line.startswith("    ")
        if line.strip() and not is_head and not is_source:
            told.append(line.rstrip())
        in_frame = is_head or is_source
    return tuple(told[-count:])
