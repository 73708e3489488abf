"""What a run left in its journal and in MLflow's database, for tests to compare."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.files import read_records
from orchestrator.tracking.records import each_step


def records(run_dir: Path, pattern: str = "*.rank-*.log") -> list[dict[str, Any]]:
    """All whole records of the matching journal files, attempt by attempt."""
    return [
        step
        for file in sorted((run_dir / "journal").glob(pattern))
        for record, _ in read_records(file)
        if record is not None
        for step in each_step(record)
    ]


def losses(run_dir: Path) -> dict[int, float]:
    """train/loss by step; a step that two attempts made appears with the later value."""
    return {
        record["step"]: record["values"]["train/loss"]
        for record in records(run_dir, "*.rank-0.log")
        if record["kind"] == "metrics" and "train/loss" in record["values"]
    }


def windows(run_dir: Path, *, attempt: int | None = None) -> dict[int, list[int]]:
    """The sample ids of every step, over all ranks, in the order of rank and micro-step; of one attempt, or of all."""
    found: dict[int, list[tuple[str, list[int]]]] = {}
    of_attempt = "" if attempt is None else f"{attempt:03d}."
    for file in sorted((run_dir / "journal").glob(f"{of_attempt}*.rank-*.log")):
        rank = int(file.name.rsplit("rank-", 1)[1].split(".")[0])
        for record, _ in read_records(file):
            if record and record["kind"] == "window":
                ids = [sample for micro in record["micro_batches"] for sample in micro]
                found.setdefault(record["step"], []).append((f"{rank:06d}", ids))
    return {step: [sample for _, ids in sorted(parts) for sample in ids] for step, parts in found.items()}


def metric_rows(database: Path, key: str, *, run_id: str | None = None) -> list[tuple[int, float]]:
    """(step, value) of every row MLflow holds for `key`, of one run or of all, in the order of steps."""
    query = "select step, value from metrics where key = ?1 and (?2 is null or run_uuid = ?2) order by step"
    return [(int(step), float(value)) for step, value in _rows(database, query, (key, run_id))]


def tag_of_run(database: Path, run_id: str, key: str) -> str:
    """A tag of one run."""
    rows = _rows(database, "select value from tags where run_uuid = ? and key = ?", (run_id, key))
    return str(rows[0][0])


def _rows(database: Path, query: str, values: tuple[str | None, ...]) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def largest_difference(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """The largest relative difference of two curves over the same steps."""
    assert one.keys() == other.keys(), "the curves have different steps"
    return max(abs(one[step] - other[step]) / max(abs(one[step]), 1e-300) for step in one)
