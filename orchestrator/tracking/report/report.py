"""How well a run used its machines: read from its files and journals, for people to be told. Standard library only."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.files import read_json
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.tracking.attempts import Attempt, History
from orchestrator.tracking.report.bound import Bound, bound_of
from orchestrator.tracking.report.usage import Part, Usage, read_usage

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Report:
    """What is known of a run's use of its machines. A device is a GPU, or what a rank on a CPU computes on."""

    name: str
    state: str
    """As `orchestrate status` has it."""
    is_at_work: bool
    """Whether an attempt without a verdict has not ended."""
    history: History
    usage: Usage
    accelerator: Literal["cuda", "cpu"]
    num_devices: int
    """Of the last attempt that had a plan; 0 where none had."""
    device_hours: float
    """Devices times hours, from each attempt's start to its end or its last step."""
    step_hours: float
    """Of these, in steps."""
    waited_hours: float
    """Of the steps', waiting for data."""
    saved_hours: float
    """Which there would be more of without what tuning did."""

    @property
    def step_share(self) -> float:
        """Of the device-hours, in steps."""
        return self.step_hours / self.device_hours if self.device_hours else 0.0

    @property
    def waited_share(self) -> float:
        """Of the steps' hours, waiting for data."""
        return self.waited_hours / self.step_hours if self.step_hours else 0.0

    @property
    def last_step(self) -> int | None:
        """The last optimizer step that is known of."""
        return max((each.last_step for each in self.history.attempts if each.last_step is not None), default=None)

    def bounds(self) -> dict[Bound, float]:
        """What held the run up, by the share of its steps' time; the largest first."""
        found = defaultdict[Bound, float](float)
        for part in self.usage.parts:
            if (bound := self.bound_in(part)) is not None:
                found[bound] += part.step_s
        total_s = sum(found.values())
        return {bound: found[bound] / total_s for bound in sorted(found, key=lambda each: -found[each])}

    def bound_in(self, part: Part) -> Bound | None:
        """What held it up in one part of its time; None where it made no step."""
        if part.wait_share is None:
            return None
        return bound_of(
            part.wait_share,
            exchange_share=part.exchange_share,
            gpu_percent=part.gpu_percent,
            throttled_percent=part.throttled_percent,
            shared_percent=part.shared_percent,
            accelerator=self.accelerator,
        )

    def last_bound(self) -> Bound | None:
        """What held it up at the end, or holds it up now."""
        found = [bound for part in self.usage.parts if (bound := self.bound_in(part)) is not None]
        return found[-1] if found else None


def read_report(run: RunDir, *, state: str, is_at_work: bool, history: History, since: float = -math.inf) -> Report:
    """The report on a run that is in `state`; its journals are read whole.

    With `since` (Unix seconds) usage, waiting and bounds are those of the time from then on.
    """
    usage = read_usage(run.path, since=since)
    topologies = {each.number: topology for each in run.all_attempts() if (topology := _topology(each))}
    devices = {number: int(topology["world_size"]) for number, topology in topologies.items()}
    last = max(topologies, default=None)

    def hours(seconds_by_attempt: Mapping[int, float]) -> float:
        return sum(devices.get(number, 0) * seconds for number, seconds in seconds_by_attempt.items()) / _HOUR_S

    return Report(
        run.path.name,
        state,
        is_at_work,
        history,
        usage,
        accelerator="cuda" if last is not None and topologies[last].get("accelerator") == "cuda" else "cpu",
        num_devices=0 if last is None else devices[last],
        device_hours=hours({each.number: _seconds(each, usage) for each in history.attempts}),
        step_hours=hours(usage.steps_s),
        waited_hours=hours(usage.waited_s),
        saved_hours=hours(usage.saved_s),
    )


def ended_at(attempt: Attempt, usage: Usage) -> float | None:
    """When an attempt gave its machines back; the end of its last step, where nobody says. None for neither."""
    return attempt.ended_at if attempt.ended_at is not None else usage.last_step_at.get(attempt.number)


def _seconds(attempt: Attempt, usage: Usage) -> float:
    """How long it had its machines."""
    end = ended_at(attempt, usage)
    return 0.0 if end is None or attempt.started_at is None else max(0.0, end - attempt.started_at)


def _topology(attempt: AttemptDir) -> Mapping[str, Any]:
    """What the plan of an attempt says of its machines; {} for one that has none, or one that nobody can read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        topology: Mapping[str, Any] = (read_json(attempt.plan) or {})["topology"]
        return topology if int(topology["world_size"]) > 0 else {}
    return {}
