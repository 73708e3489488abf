"""How well a run used its machines, as people read it: its time over time, what was changed, what holds it up. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.tracking.attempt_text import ratio_text
from orchestrator.tracking.events import ADVICE, GPU, MICRO, PRECISION, PREFETCH, TUNING, WORKERS
from orchestrator.tracking.report.bound import IN_WORDS, NEXT
from orchestrator.tracking.report.report import Report
from orchestrator.tuning.amp_law import precision_text

_BARS = "▁▂▃▄▅▆▇█"
_MOST_EVENTS, _MOST_LIVE_EVENTS = 12, 4
_COMPUTING = ("compute", "host", "unknown")
"""What a larger micro-batch may help against."""


def report_screen(told: Report) -> str:
    """State, time, waiting and GPUs over time, what tuning did, what holds it up, and one thing to do next."""
    rows = [("run", f"{told.name}: {state_text(told)}")]
    if not told.usage.parts:
        rows.append(("time", "no step is known yet"))
        return _screen(rows)
    rows += [("time", line) for line in _time(told)]
    rows += _over_time(told, _waiting(told))
    if peak := peak_text(told):
        rows.append(("memory", " at most ".join(peak)))
    rows += [("tuning", line) for line in _events(told, _MOST_EVENTS)]
    rows += [("bound by", f"{bound}, {share:.0%}: {IN_WORDS[bound]}") for bound, share in told.bounds().items()]
    rows.append(("next", next_step(told)))
    return _screen(rows)


def live_screen(told: Report, progress: str) -> str:
    """Where a run is, and how it used its machines in the last minutes, which `told` is of: for `top`."""
    rows = [("run", progress)]
    if told.usage.parts:
        rows += _over_time(told, f"{told.usage.wait_share:.0%} of the steps' time was waiting for data")
        rows += [("tuning", line) for line in _events(told, _MOST_LIVE_EVENTS)]
    if (bound := told.last_bound()) is not None:
        rows.append(("bound by", f"{bound}: {IN_WORDS[bound]}"))
    return _screen(rows)


def _over_time(told: Report, waiting: str) -> Iterator[tuple[str, str]]:
    """Waiting, exchanging and GPUs as rows with bars."""
    yield "waiting", f"{_bars([part.wait_share for part in told.usage.parts])}  {waiting}"
    if (exchange_share := told.usage.exchange_share) is not None:
        bars = _bars([part.exchange_share for part in told.usage.parts])
        yield (
            "exchange",
            f"{bars}  {exchange_share:.0%} of the steps' time was exchanging gradients, after computing them",
        )
    if told.usage.gpus:
        shares = [None if part.gpu_percent is None else part.gpu_percent / 100 for part in told.usage.parts]
        yield "gpus", f"{_bars(shares)}  {_gpus(told)}"


def report_facts(told: Report) -> dict[str, Any]:
    """The same as data. Shares are of 1, times Unix seconds, hours those of a device."""
    return {
        "name": told.name,
        "state": told.state,
        "step": told.last_step,
        "accelerator": told.accelerator,
        "num_devices": told.num_devices,
        "device_hours": told.device_hours,
        "step_hours": told.step_hours,
        "waited_hours": told.waited_hours,
        "exchange_share": told.usage.exchange_share,
        "saved_hours": told.saved_hours,
        "gpus": dict(told.usage.gpus),
        "peaks_gib": {"observed": told.usage.observed_peak_gib, "predicted": told.usage.predicted_peak_gib},
        "parts": [{**asdict(part), "bound": told.bound_in(part)} for part in told.usage.parts],
        "bounds": told.bounds(),
        "events": [dict(event) for event in told.usage.events],
        "next": next_step(told) if told.usage.parts else None,
        **told.history.as_json(),
    }


def state_text(told: Report) -> str:
    """'done, step 900'."""
    return told.state if told.last_step is None else f"{told.state}, step {told.last_step}"


def next_step(told: Report) -> str:
    """One thing to do: what rank 0 has advised last, else by what holds the run up at its end."""
    advised = [event for event in told.usage.events if event["name"] == ADVICE and "advice" in event]
    bound = told.last_bound()
    if bound == "input" and (for_loader := [event for event in advised if event.get("knob") != MICRO]):
        return str(for_loader[-1]["advice"])
    if bound in _COMPUTING and (larger := [event for event in advised if _is_of_last_attempt(event, told)]):
        return str(larger[-1]["advice"])
    last = next((event for event in reversed(told.usage.events) if event.get("knob") == PRECISION), None)
    if bound == "compute" and last is not None and last.get("applied") is False:
        return f"tuning.amp: auto: tries {last.get('to')}, if its gradients are those of fp32"
    return NEXT[bound or "unknown"]


def _is_of_last_attempt(event: Mapping[str, Any], told: Report) -> bool:
    """Whether it advises a micro-batch, other than that of an earlier attempt."""
    return event.get("knob") == MICRO and event["attempt"] == max(told.usage.last_step_at, default=None)


def _screen(rows: Sequence[tuple[str, str]]) -> str:
    lines, before = [], ""
    for label, text in rows:
        lines.append(f"{'' if label == before else label:<11}{text}".rstrip() + "\n")
        before = label
    return "".join(lines)


def _time(told: Report) -> Iterator[str]:
    yield f"{amount_text(told, told.device_hours)} on {devices_text(told)}, {told.step_share:.0%} of them in steps"
    if ratio := ratio_text(told.history):
        yield ratio


def _waiting(told: Report) -> str:
    saved = f"; tuning saved {amount_text(told, told.saved_hours)}" if told.saved_hours > 0 else ""
    waited = amount_text(told, told.waited_hours)
    return f"{told.waited_share:.0%} of the steps' time was waiting for data: {waited}{saved}"


def amount_text(told: Report, hours: float) -> str:
    """'5.3 GPU-hours'; of less than a tenth of one, '19 GPU-seconds'."""
    device = _unit_of(told)
    return f"{hours:,.1f} {device}-hours" if hours >= 0.1 else f"{hours * 3600:,.0f} {device}-seconds"


def devices_text(told: Report) -> str:
    """'8 GPUs'."""
    return f"{told.num_devices} {_unit_of(told)}{'' if told.num_devices == 1 else 's'}"


def _unit_of(told: Report) -> str:
    """On CPUs a rank is what computes."""
    return "GPU" if told.accelerator == "cuda" else "rank"


def peak_text(told: Report) -> tuple[str, str] | None:
    """('38.20 GiB', 'on any rank, 41.00 GiB predicted') of memory at most; None before an attempt has ended."""
    observed, predicted = told.usage.observed_peak_gib, told.usage.predicted_peak_gib
    if observed is None:
        return None
    beside = "" if predicted is None else f", {predicted:.2f} GiB predicted"
    return f"{observed:.2f} GiB", f"on any rank{beside}"


def _gpus(told: Report) -> str:
    used = told.usage.gpus
    mean, least = sum(used.values()) / len(used), min(used, key=lambda gpu: used[gpu])
    least_text = f", least {least}: {used[least]:.0f}%" if len(used) > 1 else ""
    return f"{mean:.0f}% of the time some kernel ran{least_text}"


def _events(told: Report, most: int) -> Iterator[str]:
    lines = [line for event in told.usage.events if (line := event_text(event))]
    if len(lines) > most:
        yield f"({len(lines) - most} before these: `orchestrate report --json` has them)"
    yield from lines[-most:]


def event_text(event: Mapping[str, Any]) -> str:
    """What tuning did, or what befell a GPU, in one line; '' for anything else."""
    if event["name"] == GPU:
        return str(event.get("what", ""))
    if event["name"] != TUNING:
        return ""
    step = f"step {event.get('step')}"
    if event.get("knob") == PRECISION:
        return f"{step}: {precision_text(event)}"
    knob = str(event.get("knob", WORKERS))
    what = "micro-batches ready in each loader process" if knob == PREFETCH else "loader processes"
    if "kept" in event:
        return f"{step}: {event['kept']} {what} kept: {1 + event.get('gain', 0.0):.2f} x the speed"
    verb = what if event.get("applied") else f"suggested: {knob}"
    return f"{step}: {verb} {event.get('from')} -> {event.get('to')}: {event.get('why', '')}"


def _bars(shares: Sequence[float | None]) -> str:
    """One sign for each, by its height; a blank where nothing is known."""
    return "".join(" " if share is None else _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))] for share in shares)
