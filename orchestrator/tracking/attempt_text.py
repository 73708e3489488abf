"""The attempts of a run as cells of a table and a sentence, for a terminal and for MLflow alike. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.tracking.attempts import Attempt, History
from orchestrator.units import format_count, format_seconds

HEAD = ("Attempt", "Started", "Job", "Nodes", "Steps", "Lost", "Restart", "Why it ended")
_MOST_NODES = 3


def cells(attempt: Attempt, why: str, *, clock: Callable[[float], time.struct_time]) -> tuple[str, ...]:
    """What stands below HEAD for one attempt; `clock` is time.localtime or time.gmtime, '-' is what nobody knows."""
    first, last, started = attempt.first_step, attempt.last_step, attempt.started_at
    return (
        str(attempt.number),
        "-" if started is None else time.strftime("%Y-%m-%d %H:%M:%S", clock(started)),
        attempt.job_id or "-",
        _nodes(attempt.nodes),
        "-" if first is None or last is None else f"{first}-{last}",
        "-" if attempt.lost_steps is None else format_count(attempt.lost_steps),
        "-" if attempt.restart_s is None else format_seconds(attempt.restart_s),
        why,
    )


def why_it_ended(attempt: Attempt, *, at_work: str | None) -> str:
    """The cause in plain words, the reason, and what comes next of itself.

    `at_work` stands where there is no verdict on a run's last attempt; None for an earlier one, which another followed.
    """
    if attempt.cause is None:
        return at_work or "ended without a verdict"
    return f"{attempt.why}; then {attempt.then}" if at_work and attempt.then else attempt.why


def ratio_text(history: History) -> str:
    """'effective training time ratio 0.870: 433 s of steps that count in 498 s'; '' where it is not known."""
    ratio = history.effective_training_time_ratio
    if ratio is None or history.productive_s is None or history.wall_s is None:
        return ""
    seconds = f"{format_seconds(history.productive_s)} of steps that count in {format_seconds(history.wall_s)}"
    return f"effective training time ratio {ratio:.3f}: {seconds}"


def _nodes(nodes: tuple[str, ...]) -> str:
    more = len(nodes) - _MOST_NODES
    return (",".join(nodes[:_MOST_NODES]) + (f" and {more} more" if more > 0 else "")) or "-"
