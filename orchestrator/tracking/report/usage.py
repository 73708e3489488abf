"""How a run's time was used: what its journals say of steps, of waiting for data, and of its GPUs, over time.

Standard library only. Every journal is read once: less than 2 s for 150,000 steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from orchestrator.tracking.events import (
    ADVICE,
    DATA_WAIT,
    EXCHANGE,
    GPU,
    OBSERVED_PEAK,
    PREDICTED_PEAK,
    STEP_TIME,
    TUNING,
    WORKERS,
)
from orchestrator.tracking.journal import JournalFile, read_journal_dir

NUM_PARTS = 40
"""Stretches of equal length that a run's time is looked at in."""

_GPU, _UTILIZATION, _THROTTLED, _OTHERS = "gpu/", "/utilization_percent", "/throttled_percent", "/others"
_EVENTS = (TUNING, ADVICE, GPU)
_FIRST_MEAN_S, _LONGEST_MEAN_S = 1.0, 15.0
"""What a node's first sample is of, and at most any other: a supervisor takes one every 10 s."""


@dataclass(frozen=True)
class Part:
    """One stretch of the run's time. Times are Unix seconds."""

    begin: float
    end: float
    step_s: float = 0.0
    """In steps; each rank is in a step at the same time."""
    wait_s: float = 0.0
    """Of these, waiting for data: the mean of the ranks."""
    exchange_s: float | None = None
    """Of these, exchanging gradients after the last backward pass; None where no rank has measured it."""
    gpu_percent: float | None = None
    """Mean utilisation of the run's GPUs, as far as their driver tells; None where it tells of none."""
    throttled_percent: float | None = None
    """Of the time, in which their clocks were held down."""
    shared_percent: float | None = None
    """Of the time, in which processes of others ran on the GPU that had them longest: all ranks wait for its one."""

    @property
    def wait_share(self) -> float | None:
        """Of the steps' time; None where there was none."""
        return self.wait_s / self.step_s if self.step_s > 1e-6 else None

    @property
    def exchange_share(self) -> float | None:
        """Of the steps' time; None where nobody knows."""
        return self.exchange_s / self.step_s if self.exchange_s is not None and self.step_s > 1e-6 else None


@dataclass(frozen=True)
class Usage:
    """A run's time in parts and by attempt, and what happened on the way."""

    parts: tuple[Part, ...] = ()
    steps_s: Mapping[int, float] = field(default_factory=dict)
    """By attempt: seconds in steps, those that were made again included."""
    waited_s: Mapping[int, float] = field(default_factory=dict)
    """By attempt: of these, waiting for data."""
    gpus: Mapping[str, float] = field(default_factory=dict)
    """Mean utilisation in percent, by `<node> gpu <i>`."""
    events: tuple[Mapping[str, Any], ...] = ()
    """Of tuning, of advice and of GPUs, in the order of time: each with its `name`, `attempt`, `time` and detail."""
    saved_s: Mapping[int, float] = field(default_factory=dict)
    """By attempt: seconds that its steps would have taken longer with what it began with."""
    last_step_at: Mapping[int, float] = field(default_factory=dict)
    """By attempt: when its last step ended, in Unix seconds."""
    observed_peak_gib: float | None = None
    """The highest peak of any rank's memory, of the last attempt that knew it."""
    predicted_peak_gib: float | None = None
    """What was predicted for it, for the same attempt."""

    @property
    def wait_share(self) -> float:
        """Of the steps' time, waiting for data."""
        step_s = sum(self.steps_s.values())
        return sum(self.waited_s.values()) / step_s if step_s else 0.0

    @property
    def exchange_share(self) -> float | None:
        """Of the time of those steps of which it is known, exchanging gradients; None where it is of none."""
        known = [part for part in self.parts if part.exchange_share is not None]
        step_s = sum(part.step_s for part in known)
        return sum(part.exchange_s or 0.0 for part in known) / step_s if known else None


@dataclass
class _Step:
    attempt: int
    ended: float
    seconds: float
    wait_share: float
    """Of `seconds`."""
    exchange_share: float | None = None
    """Of `seconds`, by the last exchange of gradients that was measured by then."""


def read_usage(run_dir: Path, *, since: float = -math.inf) -> Usage:
    """What the journals of a run say by now; of what was `since` (Unix seconds)."""
    steps, samples, events = list[_Step](), list[tuple[float, str, Mapping[str, float]]](), list[dict[str, Any]]()
    peaks, exchange_s = dict[int, Mapping[str, Any]](), dict[int, float]()
    for file, record in read_journal_dir(run_dir):
        at = record.get("time_ms", 0) / 1000
        of_step = record.get("kind") == "metrics" and file.rank == 0
        if of_step and isinstance((measured := record.get("values", {}).get(EXCHANGE)), int | float):
            exchange_s[file.attempt] = measured
        if at < since:
            continue
        if of_step:
            steps.extend(_step_in(file, record, at, exchange_s.get(file.attempt)))
            if isinstance((values := record.get("values", {})).get(OBSERVED_PEAK), int | float):
                peaks[file.attempt] = values
        elif record.get("kind") == "system":
            samples.append((at, file.node, record.get("values", {})))
        elif record.get("kind") == "event" and record.get("name") in _EVENTS:
            events.append({**record.get("detail", {}), "name": record["name"], "attempt": file.attempt, "time": at})
    events.sort(key=lambda event: event["time"])
    last = peaks[max(peaks)] if peaks else {}
    return replace(
        usage_of(steps, samples, events),
        observed_peak_gib=last.get(OBSERVED_PEAK),
        predicted_peak_gib=last.get(PREDICTED_PEAK),
    )


def _step_in(file: JournalFile, record: Mapping[str, Any], at: float, exchange_s: float | None) -> Iterator[_Step]:
    values = record.get("values", {})
    seconds, share = values.get(STEP_TIME), values.get(DATA_WAIT, 0.0)
    if isinstance(seconds, int | float) and isinstance(share, int | float):
        exchange_share = None if exchange_s is None else min(1.0, exchange_s / max(seconds, 1e-9))
        yield _Step(file.attempt, at, float(seconds), min(1.0, max(0.0, float(share))), exchange_share)


def usage_of(
    steps: Sequence[_Step],
    samples: Sequence[tuple[float, str, Mapping[str, float]]],
    events: Sequence[Mapping[str, Any]],
) -> Usage:
    """The usage that these come to; `samples` are (Unix seconds, node, values). Pure."""
    steps_s, waited_s, last_step_at = defaultdict[int, float](float), defaultdict[int, float](float), dict[int, float]()
    for step in steps:
        steps_s[step.attempt] += step.seconds
        waited_s[step.attempt] += step.seconds * step.wait_share
        last_step_at[step.attempt] = max(step.ended, last_step_at.get(step.attempt, 0.0))
    used = [(at, f"{node} gpu {index}", value) for at, node, index, value in _of_gpus(samples, _UTILIZATION)]
    by_gpu = defaultdict[str, list[float]](list)
    for _, gpu, value in used:
        by_gpu[gpu].append(value)
    return Usage(
        parts=tuple(_parts(steps, samples)),
        steps_s=dict(steps_s),
        waited_s=dict(waited_s),
        gpus={gpu: fmean(values) for gpu, values in sorted(by_gpu.items())},
        events=tuple(events),
        saved_s=_saved_s(steps, events),
        last_step_at=last_step_at,
    )


def _of_gpus(
    samples: Sequence[tuple[float, str, Mapping[str, float]]], name: str
) -> Iterator[tuple[float, str, str, float]]:
    """(Unix seconds, node, index, value) of each GPU in each sample that has it."""
    for at, node, values in samples:
        for key, value in values.items():
            if key.startswith(_GPU) and key.endswith(name) and isinstance(value, int | float):
                yield at, node, key.removeprefix(_GPU).removesuffix(name), float(value)


def _parts(steps: Sequence[_Step], samples: Sequence[tuple[float, str, Mapping[str, float]]]) -> Iterator[Part]:
    """From the beginning of the first step to the end of the last one."""
    if not steps:
        return
    begin, end = min(step.ended - step.seconds for step in steps), max(step.ended for step in steps)
    length = max(end - begin, 1e-3) / NUM_PARTS

    def part(at: float) -> int:
        return min(NUM_PARTS - 1, max(0, int((at - begin) / length)))

    def spread(began: float, ended: float) -> Iterator[tuple[int, float]]:
        """The parts between two moments, and how many seconds of each."""
        for index in range(part(began), part(ended) + 1):
            seconds = min(ended, begin + (index + 1) * length) - max(began, begin + index * length)
            if seconds > 0:
                yield index, seconds

    spent = [(*some, step) for step in steps for some in spread(step.ended - step.seconds, step.ended)]
    step_s = _sum_by_part((index, seconds) for index, seconds, _ in spent)
    wait_s = _sum_by_part((index, seconds * step.wait_share) for index, seconds, step in spent)
    exchange_s = _sum_by_part(
        (index, seconds * step.exchange_share) for index, seconds, step in spent if step.exchange_share is not None
    )
    since = _sampled_since(samples)

    def by_part(values: Iterable[tuple[float, str, str, float]]) -> dict[int, float]:
        return _mean_by_part(
            (index, seconds, value) for at, node, _, value in values for index, seconds in spread(since[node, at], at)
        )

    used, throttled = (by_part(_of_gpus(samples, name)) for name in (_UTILIZATION, _THROTTLED))
    shared = [by_part(values) for values in _shared_by_gpu(samples)]
    for index in range(NUM_PARTS):
        began, most = begin + index * length, max((gpu[index] for gpu in shared if index in gpu), default=None)
        yield Part(
            began,
            began + length,
            step_s.get(index, 0.0),
            wait_s.get(index, 0.0),
            exchange_s=exchange_s.get(index),
            gpu_percent=used.get(index),
            throttled_percent=throttled.get(index),
            shared_percent=most,
        )


def _shared_by_gpu(
    samples: Sequence[tuple[float, str, Mapping[str, float]]],
) -> Iterable[list[tuple[float, str, str, float]]]:
    """For each GPU, in percent of the time: whether others' processes were there. A sample tells their mean number."""
    found = defaultdict[tuple[str, str], list[tuple[float, str, str, float]]](list)
    for at, node, index, number in _of_gpus(samples, _OTHERS):
        found[node, index].append((at, node, index, 100.0 * min(1.0, number)))
    return found.values()


def _sampled_since(samples: Sequence[tuple[float, str, Mapping[str, float]]]) -> dict[tuple[str, float], float]:
    """Since when the values of each node's samples are means: its sample before, or else shortly before."""
    found, before = dict[tuple[str, float], float](), dict[str, float]()
    for at, node in sorted((at, node) for at, node, _ in samples):
        last = before.get(node, -math.inf)
        found[node, at] = last if at - last <= _LONGEST_MEAN_S else at - _FIRST_MEAN_S
        before[node] = at
    return found


def _sum_by_part(values: Iterator[tuple[int, float]]) -> dict[int, float]:
    """Of (part, value)."""
    found = defaultdict[int, float](float)
    for index, value in values:
        found[index] += value
    return dict(found)


def _mean_by_part(values: Iterator[tuple[int, float, float]]) -> dict[int, float]:
    """Of (part, seconds, value): the mean over the seconds."""
    found = defaultdict[int, list[tuple[float, float]]](list)
    for index, seconds, value in values:
        found[index].append((seconds, value))
    return {
        index: sum(seconds * value for seconds, value in each) / sum(seconds for seconds, _ in each)
        for index, each in found.items()
    }


def _saved_s(steps: Sequence[_Step], events: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """By attempt. What was kept makes steps so many times as fast as the attempt began, until something else is kept or
    it is taken back; a trial counts as what it was tried against."""
    kept, factors = defaultdict[int, list[tuple[float, float]]](list), dict[tuple[int, str], float]()
    for event in events:
        attempt, knob, gain = event["attempt"], str(event.get("knob", WORKERS)), event.get("gain")
        if event["name"] != TUNING:
            continue
        if "kept" in event and isinstance(gain, int | float):
            factors[attempt, knob] = factors.get((attempt, knob), 1.0) * (1.0 + gain)
        elif event.get("reverted") and gain is None:
            factors.pop((attempt, knob), None)
        else:
            continue
        kept[attempt].append((event["time"], math.prod(factors[key] for key in factors if key[0] == attempt)))
    saved_s = dict[int, float]()
    for attempt, changes in kept.items():
        ended = sorted((step.ended, step.seconds) for step in steps if step.attempt == attempt)
        total_s = 0.0
        for (begin, factor), (end, _) in zip(changes, [*changes[1:], (math.inf, 0.0)], strict=True):
            total_s += (factor - 1.0) * sum(seconds for at, seconds in ended if begin < at <= end)
        saved_s[attempt] = max(0.0, total_s)
    return saved_s
