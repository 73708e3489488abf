"""The screen of `orchestrate verify-topology`. Pure: a report in, text out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.cli.render.text import aligned
from orchestrator.plan.verification import BOUNDS, PrecisionName, Row, VerifyReport
from orchestrator.units import plural

_HEAD = ("PRECISION", "WORLD", "MICRO-BATCHES", "ACCUMULATION", "LOSS", "PARAMETERS", "SAMPLES", "")
_MOST_NAMED = 3


def verify_screen(report: VerifyReport) -> str:
    """What is compared with what, a table of the differences, and the verdict with its reasons."""
    lines = [
        f"batch      {plural(report.effective_batch_size, 'sample')}, {plural(report.steps, 'step')}",
        f"reference  one process, {report.reference}",
        *(
            f"bounds     {name}: loss {BOUNDS[name].loss:.0e}, parameters {BOUNDS[name].parameters:.0e}"
            for name in dict.fromkeys(row.precision for row in report.rows)
        ),
    ]
    table = aligned([_HEAD, *map(_cells, report.rows)]) if report.rows else ""
    return "".join(f"{line}\n" for line in (*lines, "")) + table + "".join(f"{line}\n" for line in ("", *_end(report)))


def _cells(row: Row) -> tuple[str, ...]:
    loss, parameters, samples = "-", "-", "-"
    if not row.failed and row.loss is not None and row.parameters is not None:
        loss, parameters = f"{row.loss:.1e}", f"{row.parameters:.1e}"
        samples = "same" if row.same_data else "other content" if row.same_ids else "other ids"
    verdict = "holds" if row.holds else "fails to train" if row.failed else "differs"
    accumulation = str(row.gradient_accumulation_steps)
    return (row.precision, str(row.world_size), row.micro_batches, accumulation, loss, parameters, samples, verdict)


def _end(report: VerifyReport) -> list[str]:
    """`holds`, or what does not and why."""
    num_rows, num_failing = len(report.rows), sum(not row.holds for row in report.rows)
    lines = [_moved(name, report) for name in dict.fromkeys(moved.precision for moved in report.moved)]
    if not num_failing:
        return [*lines, f"holds      {num_rows} of {num_rows} topologies, {report.seconds:.0f} s"]
    lines.append(f"differs    {num_failing} of {num_rows} topologies, {report.seconds:.0f} s")
    for reason in report.reasons:
        lines.append(f"reason     {reason.where}: {reason.what}")
        if reason.fix:
            lines.append(f"           {reason.fix}")
    return lines


def _moved(precision: PrecisionName, report: VerifyReport) -> str:
    """The parameters that are not held to the bounds, since another order of the same sums moves them too."""
    found = [moved for moved in report.moved if moved.precision == precision]
    names, most = [moved.name for moved in found], max(moved.difference for moved in found)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    shown = f"{', '.join(names[:_MOST_NAMED])}{more}"
    return f"rounding   {precision}: {shown}: {most:.0e} in one process too, with its samples in another order"


def verify_facts(report: VerifyReport) -> dict[str, Any]:
    """The report as data."""
    rows = [{**asdict(row), "holds": row.holds} for row in report.rows]
    bounds = {name: asdict(bound) for name, bound in BOUNDS.items()}
    return {**asdict(report), "holds": report.holds, "bounds": bounds, "rows": rows}
