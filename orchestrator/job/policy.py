"""What comes after an attempt: a new one in the same allocation, the scheduler's queue, or the end. Pure.

Each cause has a budget of attempts. An attempt that left a new checkpoint spends none of it: a run that gets on may be
interrupted as often as it must.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.job.verdict import Cause, OutOfMemory, Verdict
from orchestrator.plan.effective import MORE_ROOM

MOST_WITHOUT_CHECKPOINT = 3
"""Attempts that fail one after another without a new checkpoint, whatever their causes, before the run is stopped."""

RELAUNCHES: Mapping[Cause, int] = {
    "killed": 2,
    "hung": 2,
    "network": 2,
    "node_lost": 2,
    "failed_check": 2,
    "launch": 2,
    "host_memory": 1,
    "user_code": 1,
    "unknown": 1,
}
"""How often an attempt that ended so is followed by another without a new checkpoint. Other causes would come again,
or are an end that somebody wanted."""

_INTERRUPTED: Mapping[Cause, str] = {"preempted": "preempted", "time_limit": "its time was up"}
_BEFORE_ANY_RANK: frozenset[Cause] = frozenset({"launch", "failed_check"})
_SUSPECT_AT_ONCE: frozenset[Cause] = frozenset({"node_lost", "failed_check"})
_SUSPECT_WHEN_REPEATED: frozenset[Cause] = frozenset({"killed", "hung"})

_MORE_ROOM_IN_SESSION = "torch.utils.checkpoint in the script, shorter samples or GPUs with more memory"
_AGAIN = "started again from the newest checkpoint"
_NOTHING_HAD_BEGUN = "started again: no rank had begun"


@dataclass(frozen=True)
class Move:
    """What the driver does next, and why; the reason is told after that of the verdict, '' where that says all."""

    action: Literal["relaunch", "requeue", "stop"]
    why: str = ""
    without: tuple[str, ...] = ()
    """Nodes that the rest of the job does without, because of the verdict."""


@dataclass(frozen=True)
class Circumstances:
    """What the next attempt could have."""

    resumes: bool = True
    """The recipe goes on from its checkpoints; a plain command that had begun may spoil what it has written."""
    has_queue: bool = False
    """A scheduler could start the run again, on other nodes or with more time."""
    nodes: tuple[str, ...] = ()
    """Nodes that are left of the allocation, the driver's first; none that earlier attempts did without."""
    checkpoint_step: int | None = None
    """The newest complete checkpoint when the first of the attempts that count began."""
    is_cancelled: bool = False
    """A person has asked for the end, perhaps when no rank was there to hear it."""


def next_move(verdict: Verdict, past: Sequence[Verdict] = (), around: Circumstances = Circumstances()) -> Move:
    """The move after `verdict`. `past` holds the attempts before it that count, oldest first: those since a person
    submitted or resumed the run."""
    if verdict.outcome == "done" or verdict.cause in ("asked", "cancelled") or around.is_cancelled:
        return Move("stop")
    if verdict.cause in _INTERRUPTED:
        return _after_interruption(verdict, past, around)
    if verdict.asked_by is not None:
        return Move("stop")
    if verdict.out_of_memory is not None:
        earlier = [one.out_of_memory for one in past if one.out_of_memory is not None]
        return _after_out_of_memory(verdict.out_of_memory, earlier)
    return _after_failure(verdict, past, around)


def _after_interruption(verdict: Verdict, past: Sequence[Verdict], around: Circumstances) -> Move:
    """Back to the queue: however often a run is preempted, but not when its time never suffices for a checkpoint."""
    if not around.has_queue:
        return Move("stop")
    if not around.resumes:
        return Move("stop", "a command is not started again by itself: `orchestrate resume` does it")
    idle = without_progress((*past, verdict), around.checkpoint_step)
    if verdict.cause == "time_limit" and len(idle) >= MOST_WITHOUT_CHECKPOINT:
        return Move("stop", f"no new checkpoint in {len(idle)} attempts: raise resources.walltime")
    return Move("requeue", f"{_INTERRUPTED[verdict.cause]}; goes on from the newest checkpoint")


def _after_failure(verdict: Verdict, past: Sequence[Verdict], around: Circumstances) -> Move:
    """Another attempt, where the cause lets one hope and the budgets last.

    An error of the user's code before the first step would come again.
    """
    budget = RELAUNCHES.get(verdict.cause)
    begins_anew = verdict.cause in _BEFORE_ANY_RANK and bool(around.nodes)
    if budget is None or not (around.resumes or begins_anew):
        return Move("stop")
    if verdict.cause == "user_code" and verdict.failed_step is None:
        return Move("stop")
    if verdict.cause == "user_code" and any(_is_same(verdict, one) for one in past):
        return Move("stop", "the same error twice")
    idle = without_progress((*past, verdict), around.checkpoint_step)
    if len(idle) >= MOST_WITHOUT_CHECKPOINT:
        return Move("stop", f"no new checkpoint in {len(idle)} attempts")
    same = [one for one in idle if one.cause == verdict.cause]
    if len(same) > budget:
        return Move("stop", f"{len(same)} attempts ended like this without a new checkpoint")
    return _again(verdict, idle[:-1], around)


def _is_same(verdict: Verdict, other: Verdict) -> bool:
    """Whether two errors of the user's code are one, whichever rank met it and at whatever step."""
    words, others = (one.reason.partition(": ")[2] for one in (verdict, other))
    return other.cause == "user_code" and words == others


def without_progress(verdicts: Sequence[Verdict], checkpoint_step: int | None) -> tuple[Verdict, ...]:
    """The last of `verdicts` that failed one after another with no new checkpoint since the one at `checkpoint_step`.

    Attempts that were preempted, or are tried again with smaller micro-batches, are none of these.
    """
    newest, idle = checkpoint_step or 0, list[Verdict]()
    for verdict in verdicts:
        if (verdict.checkpoint_step or 0) > newest:
            newest, idle = verdict.checkpoint_step or 0, []
        elif verdict.cause != "preempted" and verdict.out_of_memory is None:
            idle.append(verdict)
    return tuple(idle)


def _again(verdict: Verdict, idle: Sequence[Verdict], around: Circumstances) -> Move:
    """On the same nodes, or without the one that is to blame; where that is the driver's own, from the queue.

    A plain command had not begun, and keeps its nodes: how much each rank trains on is its own affair.
    """
    if not around.resumes:
        return Move("relaunch", _NOTHING_HAD_BEGUN)
    node = verdict.node
    repeated = any((one.cause, one.node) == (verdict.cause, node) for one in idle)
    blamed = verdict.cause in _SUSPECT_AT_ONCE or (verdict.cause in _SUSPECT_WHEN_REPEATED and repeated)
    if node is None or not blamed:
        return Move("relaunch", _AGAIN)
    without = verdict.lost_nodes or verdict.failed_nodes or (node,)
    if around.nodes and around.nodes[0] not in without:
        return Move("relaunch", f"{_AGAIN}, without {', '.join(without)}", without)
    if around.has_queue:
        first = around.nodes[0] if around.nodes else node
        return Move("requeue", f"{first} is the first node; goes on elsewhere from the newest checkpoint", without)
    return Move("stop") if verdict.cause == "failed_check" else Move("relaunch", _AGAIN)


def _after_out_of_memory(found: OutOfMemory, earlier: Sequence[OutOfMemory]) -> Move:
    """Smaller micro-batches, where these can help: the effective batch stays what it is."""
    size = found.micro_batch_size
    more_room = _MORE_ROOM_IN_SESSION if found.opens_session else MORE_ROOM
    if found.is_command:
        return Move("stop", "the command owns its memory: lower batch.micro, if it goes by ${plan.micro_batch_size}")
    if size is None:
        return Move("stop", "no smaller micro-batch helps here; GPUs with more memory would")
    if size == 1:
        return Move("stop", f"one sample is the smallest micro-batch; use {more_room}")
    if any(past.micro_batch_size is not None and past.micro_batch_size <= size for past in earlier):
        return Move("stop", f"no smaller micro-batch than the last one could be planned; use {more_room}")
    return Move("relaunch", "planned again with smaller micro-batches")
