"""Attempts as a driver and rank 0 would have left them, at times that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.files import encode_record, make_private_dir, write_json
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.tracking.stragglers import EVENT, Straggler

Step = tuple[int, float, float]
"""(step, when it ended in Unix seconds, seconds it took)."""


def leave_attempt(
    run: RunDir,
    *,
    started_at: float,
    steps: Sequence[Step] = (),
    nodes: Sequence[str] = ("node1", "node2"),
    job_id: str = "41",
    **verdict: Any,
) -> AttemptDir:
    """The next attempt of `run`; without an `outcome` it has no verdict."""
    last = run.last_attempt()
    attempt = run.attempt(last.number + 1 if last else 0)
    make_private_dir(attempt.logs)
    write_json(attempt.driver, {"job_id": job_id, "started_at": started_at, "nodes": list(nodes), "restart_count": 0})
    if steps:
        journal_steps(run, attempt.number, steps)
    if verdict:
        write_json(attempt.verdict, {"final": verdict.get("then") is None, "reason": "", "then": None, **verdict})
    return attempt


def journal_steps(run: RunDir, attempt: int, steps: Sequence[Step], *, node: str = "node1", beat: int = 3) -> None:
    """Add the steps to rank 0's journal, `beat` of them in a record, between records of other kinds."""
    make_private_dir(run.journal)
    lines = [encode_record({"kind": "start", "schema": 1, "time_ms": 0, "attempt": attempt})]
    for begin in range(0, len(steps), beat):
        some = steps[begin : begin + beat]
        seconds = [seconds for _, _, seconds in some]
        values = {"train/loss": [1.0] * len(some), "train/step_time_s": seconds}
        times_ms = [round(ended_at * 1000) for _, ended_at, _ in some]
        record = {"kind": "steps", "time_ms": 0, "step": [step for step, _, _ in some], "times_ms": times_ms}
        lines.append(encode_record({**record, "values": values}))
        lines.append(encode_record({"kind": "metrics", "time_ms": 0, "step": some[-1][0], "values": {"val/loss": 1.0}}))
    with (run.journal / f"{attempt:03d}.{node}.rank-0.log").open("ab") as file:
        file.write(b"".join(lines))


def journal_waits(run: RunDir, attempt: int, steps: Sequence[tuple[float, float, float]]) -> None:
    """Add steps, each (when it ended in Unix seconds, its seconds, the share of these that was waiting for data)."""
    records = [
        {
            "kind": "metrics",
            "time_ms": round(ended * 1000),
            "step": number,
            "values": {"train/step_time_s": seconds, "train/data_wait": share},
        }
        for number, (ended, seconds, share) in enumerate(steps, start=1)
    ]
    _append(run, f"{attempt:03d}.node1.rank-0.log", records)


def journal_exchange(run: RunDir, attempt: int, at: float, seconds: float) -> None:
    """Add what the exchange of gradients took in a step that ended at `at` (Unix seconds), a second long."""
    values = {"train/step_time_s": 1.0, "train/data_wait": 0.0, "train/exchange_s": seconds}
    journal_metrics(run, attempt, at, 1, values)


def journal_metrics(run: RunDir, attempt: int, at: float, step: int, values: Mapping[str, float]) -> None:
    """Add what rank 0 told at a step, at `at` (Unix seconds)."""
    record = {"kind": "metrics", "time_ms": round(at * 1000), "step": step, "values": dict(values)}
    _append(run, f"{attempt:03d}.node1.rank-0.log", [record])


def journal_samples(run: RunDir, node: str, samples: Sequence[tuple[float, Mapping[str, Any]]]) -> None:
    """Add what a supervisor has sampled, each (Unix seconds, values), to its journal of the first attempt."""
    records = [{"kind": "system", "time_ms": round(at * 1000), "values": dict(values)} for at, values in samples]
    _append(run, f"000.{node}.node.log", records)


def journal_events(run: RunDir, attempt: int, events: Sequence[tuple[float, str, Mapping[str, Any]]]) -> None:
    """Add what rank 0 tells of, each (Unix seconds, name, detail)."""
    records = [
        {"kind": "event", "time_ms": round(at * 1000), "name": name, "detail": dict(detail)}
        for at, name, detail in events
    ]
    _append(run, f"{attempt:03d}.node1.rank-0.log", records)


def _append(run: RunDir, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    make_private_dir(run.journal)
    with (run.journal / name).open("ab") as file:
        file.write(b"".join(encode_record(dict(record)) for record in records))


def journal_straggler(run: RunDir, attempt: int, straggler: Straggler, *, node: str = "node1") -> None:
    """Add what rank 0 tells of a slow rank to its journal."""
    event = {"kind": "event", "time_ms": 0, "name": EVENT, "detail": straggler.as_detail()}
    _append(run, f"{attempt:03d}.{node}.rank-0.log", [event])


def even_steps(first: int, last: int, *, begins_at: float, seconds: float = 1.0) -> list[Step]:
    """Steps `first` to `last`, one after the other, each of `seconds`."""
    return [(step, begins_at + (step - first + 1) * seconds, seconds) for step in range(first, last + 1)]
