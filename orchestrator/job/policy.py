"""What comes after an attempt: a new one in the same allocation, or the end. A pure function of verdicts.

Only what a new attempt can mend is tried again, and only as long as each trial asks for less than all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.job.verdict import OutOfMemory, Verdict
from orchestrator.plan.effective import MORE_ROOM


@dataclass(frozen=True)
class Move:
    """What the driver does next, and why; the reason is told after that of the verdict, '' where that says all."""

    action: Literal["relaunch", "stop"]
    why: str = ""


def next_move(verdict: Verdict, history: Sequence[Verdict] = ()) -> Move:
    """The move after `verdict`; `history` holds those of the job's earlier attempts, oldest first.

    Somebody who asked for the end gets it. Every other failure is the end too, but for one of memory.
    """
    if verdict.outcome != "failed" or verdict.out_of_memory is None or verdict.asked_by is not None:
        return Move("stop")
    earlier = [past.out_of_memory for past in history if past.out_of_memory is not None]
    return _after_out_of_memory(verdict.out_of_memory, earlier)


def _after_out_of_memory(found: OutOfMemory, earlier: Sequence[OutOfMemory]) -> Move:
    """Smaller micro-batches, where these can help: the effective batch stays what it is."""
    size = found.micro_batch_size
    if found.is_command:
        return Move("stop", "the command owns its memory: lower batch.micro, if it goes by ${plan.micro_batch_size}")
    if size is None:
        return Move("stop", "no smaller micro-batch helps here; GPUs with more memory would")
    if size == 1:
        return Move("stop", f"one sample is the smallest micro-batch; use {MORE_ROOM}")
    if any(past.micro_batch_size is not None and past.micro_batch_size <= size for past in earlier):
        return Move("stop", f"no smaller micro-batch than the last one could be planned; use {MORE_ROOM}")
    return Move("relaunch", "planned again with smaller micro-batches")
