"""The records of a journal: what each kind holds, as JSON data. Pure; standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

StepValues = tuple[int, int, Mapping[str, float]]
"""(step, milliseconds, values) of one optimizer step."""


def _number(value: Any) -> float | int | str:
    if type(value) is int:
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)


def numbers(values: Mapping[str, Any]) -> dict[str, float | int | str]:
    """Metrics as JSON can hold them: non-finite floats become 'nan', 'inf', '-inf'."""
    return {str(key): _number(value) for key, value in values.items()}


def as_record(kind: str, time_ms: int, fields: tuple[Any, ...]) -> dict[str, Any]:
    """The record of the run directory's contract; raises TypeError or ValueError for what is no number."""
    record: dict[str, Any] = {"kind": kind, "time_ms": time_ms}
    match kind:
        case "metrics":
            record |= {"step": int(fields[0]), "values": numbers(fields[1])}
        case "steps":
            record |= _columns(fields[0])
        case "system":
            record["values"] = numbers(fields[0])
        case "tags":
            record["values"] = {str(key): str(value) for key, value in fields[0].items()}
        case "window":
            record |= {"step": int(fields[0]), "micro_batches": [[int(i) for i in ids] for ids in fields[1]]}
        case "event":
            record |= {"name": str(fields[0]), "detail": fields[1]}
        case "dropped":
            record["count"] = fields[0]
    return record


def _columns(steps: Sequence[StepValues]) -> dict[str, Any]:
    """Several steps as one record: a list for each key, null where a step has no such value."""
    keys = dict.fromkeys(key for _, _, values in steps for key in values)
    return {
        "step": [step for step, _, _ in steps],
        "times_ms": [time_ms for _, time_ms, _ in steps],
        "values": {key: [_number(values[key]) if key in values else None for _, _, values in steps] for key in keys},
    }


def each_step(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`record` as readers know it: a `steps` record is a `metrics` record for each of its steps.

    One whose lists do not match is a `metrics` record that no reader can use.
    """
    if record.get("kind") != "steps":
        yield record
        return
    steps, times_ms, columns = record.get("step"), record.get("times_ms"), record.get("values")
    lists: list[Any] = [steps, times_ms, *(columns.values() if isinstance(columns, dict) else [None])]
    if not all(isinstance(values, list) for values in lists) or len(set(map(len, lists))) != 1:
        yield {"kind": "metrics"}
        return
    for step, time_ms, *row in zip(*lists, strict=True):
        values = {key: value for key, value in zip(columns or (), row, strict=True) if value is not None}
        yield {"kind": "metrics", "time_ms": time_ms, "step": step, "values": values}
