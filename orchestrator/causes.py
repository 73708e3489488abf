"""Why attempts end, in plain words: what people read for the `cause` in a verdict.json."""

from __future__ import annotations

IN_WORDS = {
    "done": "done",
    "asked": "asked to end by a signal",
    "cancelled": "cancelled by a person",
    "preempted": "preempted: the scheduler wanted the nodes back",
    "time_limit": "the job's time was up",
    "user_code": "the recipe or its code failed",
    "device_memory": "a rank's device ran out of memory",
    "host_memory": "a node ran out of host memory",
    "node_lost": "a node was lost",
    "killed": "a process was killed, nobody says why",
    "hung": "a rank hung",
    "network": "ranks lost each other, none says why",
    "non_finite": "a loss or gradient was not a finite number",
    "disk_full": "a disk was full",
    "failed_check": "a node failed a check",
    "launch": "the workers could not be started",
    "unknown": "failed, nobody says why",
}
"""A few words for each cause of a verdict."""


def in_words(cause: str) -> str:
    """The words for a cause; for one that only a newer version knows, the cause itself."""
    return IN_WORDS.get(cause, cause.replace("_", " "))


def with_reason(cause: str, reason: str) -> str:
    """The cause in words and the reason; of a run that is done the reason says both."""
    if not reason:
        return in_words(cause)
    return reason if cause == "done" else f"{in_words(cause)}: {reason}"
