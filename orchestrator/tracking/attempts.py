"""The attempts of a run: when and where each was, why it ended, and what its end cost. Standard library only.

`history_of` is a pure function of what the driver and rank 0 have written; `read_history` reads that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.causes import with_reason
from orchestrator.files import read_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking.step_times import AttemptSteps, StepTimes
from orchestrator.tracking.stragglers import Straggler, sentences


@dataclass(frozen=True)
class Attempt:
    """One start of the workers. Times are Unix seconds; None is what nobody has written down."""

    number: int
    job_id: str | None
    nodes: tuple[str, ...]
    started_at: float | None
    ended_at: float | None
    """None while it is at work, and where its driver died without a verdict."""
    outcome: str | None
    """done, stopped or failed; None without a verdict."""
    cause: str | None
    reason: str
    then: str | None
    """What was to come next of itself; None after the run's final verdict."""
    first_step: int | None
    last_step: int | None
    """The first and the last optimizer step that it made; None for none, and for a command that tells no steps."""
    lost_steps: int | None
    """Steps that later attempts made again; for the last attempt, that a resume would have to."""
    restart_s: float | None
    """Seconds from the end of its last step to the end of the first one that a later attempt made."""

    @property
    def why(self) -> str:
        """The cause in plain words, and the reason; '' without a verdict."""
        return "" if self.cause is None else with_reason(self.cause, self.reason)


@dataclass(frozen=True)
class History:
    """A run's attempts, oldest first, and how much of its time went into steps that count."""

    attempts: tuple[Attempt, ...]
    productive_s: float | None
    """Seconds in optimizer steps, each step once, as it was made last; None where no step is known."""
    wall_s: float | None
    """Seconds from the first attempt's start to the last one's end, the time between attempts included."""
    stragglers: tuple[Straggler, ...] = ()
    """Ranks of the last attempt that were slow for a while, or still are."""

    @property
    def effective_training_time_ratio(self) -> float | None:
        """productive_s / wall_s: 1 would be a run that did nothing but steps that count. None where either is unknown.

        Starting up, evaluations, waiting for a save, steps made again and the time between attempts all lower it.
        """
        if self.productive_s is None or not self.wall_s:
            return None
        return self.productive_s / self.wall_s

    def slow_ranks(self, *, at_work: bool) -> list[str]:
        """A line for each of `stragglers`; `at_work`: a run that is at work may have an attempt that is."""
        has_ended = not self.attempts or self.attempts[-1].ended_at is not None
        return sentences(self.stragglers, at_work=at_work and not has_ended)

    def as_json(self) -> dict[str, Any]:
        """`attempts`, `effective_training_time_ratio` with the seconds that it is made of, and `stragglers`."""
        return {
            "attempts": [asdict(attempt) | {"nodes": list(attempt.nodes)} for attempt in self.attempts],
            "effective_training_time_ratio": self.effective_training_time_ratio,
            "productive_s": self.productive_s,
            "wall_s": self.wall_s,
            "stragglers": [each.as_detail() for each in self.stragglers],
        }


@dataclass(frozen=True)
class Told:
    """What the driver has written of one attempt: the contents of driver.json and verdict.json, {} without one."""

    number: int
    driver: Mapping[str, Any]
    verdict: Mapping[str, Any]


def history_of(
    told: Sequence[Told], steps: Mapping[int, AttemptSteps], *, productive_s: float, now: float | None = None
) -> History:
    """The history of the attempts `told` of, oldest first, whose steps rank 0 has journaled as `steps`, by number.

    `now` (Unix seconds) ends an attempt that is still at work. Without it such an attempt ends with its last step.
    """
    attempts = [_attempt(each, steps.get(each.number), _next_steps(each.number, steps)) for each in told]
    last = steps.get(attempts[-1].number) if attempts else None
    return History(
        tuple(attempts),
        productive_s if steps else None,
        _wall_s(attempts, steps, now),
        tuple(last.slow.values()) if last else (),
    )


def read_history(run: RunDir, times: StepTimes, *, now: float | None = None) -> History:
    """The history of `run` as its files are; `times`, which may have read some of its journal, is brought up to date.

    Reads every attempt's two files, and rank 0's journals whole: see `StepTimes` for the time that takes.
    """
    told = [Told(each.number, _read(each.driver), _read(each.verdict)) for each in run.all_attempts()]
    times.read()
    return history_of(told, times.by_attempt, productive_s=times.productive_s, now=now)


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        value = read_json(path)
        return value if isinstance(value, dict) else {}
    return {}


def _attempt(told: Told, made: AttemptSteps | None, following: AttemptSteps | None) -> Attempt:
    driver, verdict = told.driver, told.verdict
    restart_s = None
    if made is not None and following is not None:
        restart_s = max(0.0, (following.first_ended_ms - made.last_ended_ms) / 1000)
    return Attempt(
        number=told.number,
        job_id=driver.get("job_id"),
        nodes=tuple(driver.get("nodes", ())),
        started_at=driver.get("started_at"),
        ended_at=verdict.get("ended_at"),
        outcome=verdict.get("outcome"),
        cause=_cause(verdict),
        reason=" ".join(str(verdict.get("reason", "")).split()),
        then=verdict.get("then"),
        first_step=made.first if made else None,
        last_step=_last_step(made, verdict) if made else None,
        lost_steps=_lost_steps(made, following, verdict),
        restart_s=restart_s,
    )


def _cause(verdict: Mapping[str, Any]) -> str | None:
    """The verdict's cause; what an older version's, which has none, comes to."""
    if not verdict:
        return None
    if "cause" in verdict:
        return str(verdict["cause"])
    if verdict.get("outcome") == "failed":
        return "device_memory" if verdict.get("out_of_memory") else "unknown"
    return "done" if verdict.get("outcome") == "done" else "asked"


def _last_step(made: AttemptSteps, verdict: Mapping[str, Any]) -> int:
    """The last step that was made: the rank that failed may know of later ones than were journaled."""
    return max(made.last, (verdict.get("failed_step") or 1) - 1, verdict.get("step") or 0)


def _lost_steps(made: AttemptSteps | None, following: AttemptSteps | None, verdict: Mapping[str, Any]) -> int | None:
    if made is None:
        return None
    last = _last_step(made, verdict)
    if following is not None:
        not_journaled = last - max(made.last, following.first - 1)
        return made.num_made_again + max(0, not_journaled)
    if verdict.get("outcome") == "done":
        return 0
    if verdict.get("outcome") == "stopped" and verdict.get("step") is not None:
        return max(0, last - int(verdict["step"]))
    return max(0, last - int(verdict["checkpoint_step"] or 0)) if "checkpoint_step" in verdict else None


def _next_steps(number: int, steps: Mapping[int, AttemptSteps]) -> AttemptSteps | None:
    """What the next attempt that made any step made."""
    later = [other for other in steps if other > number]
    return steps[min(later)] if later else None


def _wall_s(attempts: Sequence[Attempt], steps: Mapping[int, AttemptSteps], now: float | None) -> float | None:
    """From the first thing that is known of the attempts to their end: the last thing known, where nobody says."""
    last_steps = [made.last_ended_ms / 1000 for made in steps.values()]
    known = [at for each in attempts for at in (each.started_at, each.ended_at) if at is not None]
    if not known:
        return None
    ended_at = attempts[-1].ended_at if attempts[-1].ended_at is not None else now
    return max(0.0, (max(known + last_steps) if ended_at is None else ended_at) - min(known))
