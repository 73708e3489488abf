"""The screen of `orchestrate fit`. Pure: a report in, text out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.cli.render.text import aligned
from orchestrator.plan.fit import FitReport, FitRow
from orchestrator.units import format_memory, plural

_HEAD = (
    "RECOMPUTE",
    "ACCUMULATION",
    "FIXED",
    "PER SAMPLE",
    "OPTIMIZER STEP",
    "LARGEST MICRO-BATCH",
    "DECIDED BY",
    "SIMULATED AT",
)


def fit_screen(report: FitReport) -> str:
    """A table of what fits, then where its numbers come from."""
    table = [_HEAD, *(_cells(row, simulated=report.method == "simulated") for row in report.rows)]
    lines = ["", *_budget(report), "", *_method(report)]
    return aligned(table) + "".join(f"{line.rstrip()}\n" for line in lines)


def _cells(row: FitRow, *, simulated: bool) -> tuple[str, ...]:
    size = row.largest_micro_batch
    fixed_bytes, sample_bytes = row.curve.line_at(size or 1)
    largest = "none" if size == 0 else str(size)
    if row.capped:
        largest += " (the whole batch)"
    elif not row.verified and simulated:
        largest += " (the next one was not tried)"
    sizes = ", ".join(str(point.micro_batch_size) for point in row.curve.points)
    return (
        "on" if row.recompute else "off",
        "> 1" if row.accumulating else "1",
        format_memory(fixed_bytes),
        format_memory(sample_bytes),
        format_memory(row.curve.step_bytes),
        largest,
        row.decided_by,
        sizes if simulated else "-",
    )


def _budget(report: FitReport) -> list[str]:
    budget = report.budget
    device = "GPU" if report.accelerator == "cuda" else "memory of a CPU rank"
    share = budget.margin_bytes / budget.gpu_bytes
    rows = [
        (format_memory(budget.gpu_bytes), device, ""),
        (_less(budget.margin_bytes), f"margin of {share:.0%}", budget.margin_reason),
    ]
    rows += [(_less(item.num_bytes), item.name, item.reason) for item in budget.allowances]
    rows.append((format_memory(budget.tensor_bytes) if budget.tensor_bytes > 0 else "nothing", "left for tensors", ""))
    width = max(len(name) for _, name, _ in rows)
    return [f"{size:>11}  {name:<{width}}  {reason}" for size, name, reason in rows]


def _method(report: FitReport) -> list[str]:
    if report.method == "arithmetic":
        lines = [
            "method      arithmetic: weights, gradients, optimizer state, and activations to first order",
            f"why         it could not be simulated: {report.why}",
        ]
    else:
        num_points = sum(len(row.curve.points) for row in report.rows)
        cost = f"{report.cpu_s:.0f} CPU-seconds" if report.cpu_s else "known from an earlier fit"
        lines = [
            f"method      simulated on fake tensors at {plural(num_points, 'point')}, straight lines between ({cost}):",
            "            weights, DDP's gradient buckets, optimizer state and activations of one rank",
        ]
    lines.append(f"input       {report.sample}")
    if report.alone:
        lines.append(f"least       2 samples: {report.alone}")
    if report.without_recompute:
        lines.append(f"recompute   no rows: {report.without_recompute}")
    return lines


def _less(num_bytes: int) -> str:
    return f"-{format_memory(num_bytes)}"


def fit_facts(report: FitReport) -> dict[str, Any]:
    """The report as data, sizes in bytes."""
    rows = [
        {
            "recompute": row.recompute,
            "accumulating": row.accumulating,
            "largest_micro_batch": row.largest_micro_batch,
            "fixed_bytes": row.curve.line_at(row.largest_micro_batch or 1)[0],
            "per_sample_bytes": row.curve.line_at(row.largest_micro_batch or 1)[1],
            "step_bytes": row.curve.step_bytes,
            "decided_by": row.decided_by,
            "capped": row.capped,
            "verified": row.verified,
            "points": [asdict(point) for point in row.curve.points],
        }
        for row in report.rows
    ]
    facts = {name: value for name, value in asdict(report).items() if name != "rows"}
    return {**facts, "tensor_bytes": report.budget.tensor_bytes, "rows": rows}
