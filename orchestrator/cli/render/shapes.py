"""The table of `orchestrate plan --shapes`, and what `submit --soonest` says of its choice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.plan.plan import Plan
from orchestrator.plan.shape_options import ShapeOption, idle_share
from orchestrator.submit.shapes.table import ShapeTable
from orchestrator.units import format_count, format_walltime, plural

_PARTITION = 4
"""The column that stands to the left; all others are numbers or short words, and stand to the right."""


@dataclass(frozen=True)
class _Columns:
    """What there is to show: a column that would be empty is left out."""

    hours: bool
    start: bool
    takes: bool
    end: bool

    @classmethod
    def of(cls, table: ShapeTable) -> _Columns:
        options = table.options
        return cls(
            hours=any(_hours(option) for option in options),
            start=table.has_starts,
            takes=any(option.duration_s is not None for option in options),
            end=any(_end(table, option) for option in options),
        )


def shapes_screen(table: ShapeTable) -> str:
    """A row a shape, best first and numbered; those that would not be the same run stand below with the reason."""
    columns = _Columns.of(table)
    heads = [_heads(table, columns)]
    rows = [_left(table, option) + _cells(table, option, columns) for option in table.options if option.is_exact]
    lines = _aligned([*heads, *rows], [_left(table, option) for option in table.options if not option.is_exact])
    reasons = (option.why_not for option in table.options if not option.is_exact)
    numbered = lines[: 1 + len(rows)]
    below = [f"{line}  {reason}" for line, reason in zip(lines[1 + len(rows) :], reasons, strict=True)]
    return "".join(f"{line.rstrip()}\n" for line in [*numbered, *below, "", *_notes(table), closing_line(table)])


def _aligned(rows: list[tuple[str, ...]], short: list[tuple[str, ...]]) -> list[str]:
    """Rows in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [*rows, *short] if column < len(row)) for column in range(len(rows[0]))]
    return [
        "  ".join(
            f"{cell:<{width}}" if column == _PARTITION else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        for row in [*rows, *short]
    ]


def _left(table: ShapeTable, option: ShapeOption) -> tuple[str, ...]:
    shape = option.shape
    rank = str(table.options.index(option) + 1) if option.is_exact else "-"
    mark = "*" if option.is_own else " "
    sizes = (shape.num_nodes, shape.gpus_per_node, shape.world_size)
    return (rank + mark, *map(format_count, sizes), shape.partition or "-")


def _heads(table: ShapeTable, columns: _Columns) -> tuple[str, ...]:
    device = _device(table).upper()
    left = ("", "NODES", f"{device}S", "WORLD", "PARTITION")
    wanted = {f"{device}-HOURS": columns.hours, "START": columns.start, "TAKES": columns.takes, "END": columns.end}
    middle = ("BATCH", "SHARED", "MICRO", "ACCUM", "IDLE", "STEPS")
    return (*left, *middle, *(head for head, shown in wanted.items() if shown))


def _cells(table: ShapeTable, option: ShapeOption, columns: _Columns) -> tuple[str, ...]:
    assert option.plan is not None, "an exact shape has a plan"
    batch, schedule = option.plan.batch, option.plan.schedule
    start = _moment(table.start_of(option), table.asked_at) if option.wait_s != 0 else "now"
    optional = (
        (_hours(option), columns.hours),
        (start or "unknown", columns.start),
        (_takes(option), columns.takes),
        (_end(table, option), columns.end),
    )
    return (
        format_count(batch.effective_in_unit),
        batch.kind,
        format_count(batch.micro_batch_size),
        format_count(batch.gradient_accumulation_steps),
        f"{idle_share(batch, option.shape.world_size):.1%}",
        format_count(schedule.num_steps),
        *(text for text, shown in optional if shown),
    )


def _hours(option: ShapeOption) -> str:
    """GPU-hours at the known speed, else at most those of the walltime."""
    if option.gpu_hours is not None:
        return f"{_tilde(option)}{option.gpu_hours:.3g}"
    most = None if option.plan is None else option.plan.most_gpu_hours
    return "" if most is None else f"<= {most:.3g}"


def _takes(option: ShapeOption) -> str:
    return "" if option.duration_s is None else f"{_tilde(option)}{format_walltime(option.duration_s)}"


def _end(table: ShapeTable, option: ShapeOption) -> str:
    if option.num_jobs is not None and option.num_jobs > 1:
        return f"in {option.num_jobs} jobs"
    end = _moment(table.end_of(option), table.asked_at)
    return end and f"~{end}"


def _tilde(option: ShapeOption) -> str:
    return "" if option.is_measured else "~"


def _moment(moment: datetime | None, now: datetime) -> str:
    """'17:40', or 'Nov 25 17:40' on another day; '' for an unknown one."""
    if moment is None:
        return ""
    return f"{moment:%H:%M}" if moment.date() == now.date() else f"{moment:%b} {moment.day} {moment:%H:%M}"


def _notes(table: ShapeTable) -> Iterator[str]:
    device = _device(table)
    start = f"; START is Slurm's estimate at {table.asked_at:%H:%M}" if table.has_starts else ""
    yield f"* the recipe's own shape; {device.upper()}S per node{start}"
    if table.unanswered:
        yield f"{'START unknown' if table.has_starts else 'no start estimates'}: {table.unanswered}"
    if table.sources:
        speeds = "; ".join(
            f"{found.run} ({plural(found.world_size, device)}, micro-batch {found.micro_batch_size}: "
            f"{found.samples_per_s:.3g} samples/s)"
            for found in table.sources
        )
        yield f"speeds of {speeds}; ~ is predicted from other worlds; TAKES leaves out start-up"
    for partition, why in table.left_out.items():
        yield f"partition {partition} is left out: {why}"


def _device(table: ShapeTable) -> str:
    return "GPU" if table.accelerator == "cuda" else "rank"


def closing_line(table: ShapeTable) -> str:
    """Whether the choice among the shapes touches the science."""
    if table.changes_science:
        return (
            "The effective batch, and the lr with it, follows the world (batch.per_gpu): "
            "the choice does change the science."
        )
    plan = next((option.plan for option in table.options if option.is_exact), None)
    if plan is None:
        return "None of them is the run that the recipe describes."
    same = f"The effective batch is {_batch(plan)} on every numbered shape"
    return f"{same}; {_unseen(table)}." if table.not_looked_into else f"{same}: the choice does not touch the science."


def _unseen(table: ShapeTable) -> str:
    names = " and ".join(table.not_looked_into)
    return f"whether a BatchNorm would see other micro-batches is not known ({names}: not looked into)"


def _batch(plan: Plan) -> str:
    return f"{format_count(plan.batch.effective_in_unit)} {plan.batch.unit}"


def soonest_line(table: ShapeTable, chosen: ShapeOption) -> str:
    """Which shape `--soonest` takes, and why."""
    own, taken = table.own, f"soonest: {_words(table, chosen)}"
    if chosen.is_own:
        sooner = "starts sooner" if chosen.end_s is None else "is known to end sooner"
        return f"soonest: the recipe's own shape, {_words(table, chosen)}: no other {sooner}"
    if not own.is_exact:
        return f"{taken}; the recipe's own shape cannot be had: {own.why_not}"
    assert own.plan is not None, "an exact shape has a plan"
    same = f"The effective batch is {_batch(own.plan)} on both"
    science = f"{same}; {_unseen(table)}." if table.not_looked_into else f"{same}: the science is the same."
    return f"{taken}; the recipe's own shape, {_words(table, own)}. {science}"


def _words(table: ShapeTable, option: ShapeOption) -> str:
    shape = option.shape
    size = f"{plural(shape.num_nodes, 'node')} x {plural(shape.gpus_per_node, _device(table))} in {shape.partition}"
    start = "now" if option.wait_s == 0 else _moment(table.start_of(option), table.asked_at) or "at an unknown time"
    end = _moment(table.end_of(option), table.asked_at)
    return f"{size}, starts {start}" + (f" and ends about {end}" if end else "")


def shapes_json(table: ShapeTable) -> dict[str, Any]:
    """The table as data; times are local, durations in seconds."""
    return {
        "asked_at": table.asked_at.isoformat(timespec="seconds"),
        "unanswered": table.unanswered or None,
        "changes_science": table.changes_science,
        "not_looked_into": list(table.not_looked_into),
        "left_out": dict(table.left_out),
        "sources": [vars(found) for found in table.sources],
        "shapes": [_option_json(table, option) for option in table.options],
    }


def _option_json(table: ShapeTable, option: ShapeOption) -> dict[str, Any]:
    shape, plan = option.shape, option.plan
    start, end = table.start_of(option), table.end_of(option)
    facts: dict[str, Any] = {**vars(shape), "world_size": shape.world_size, "is_own": option.is_own}
    facts |= {"is_exact": option.is_exact, "why_not": option.why_not or None}
    if plan is not None:
        facts |= {
            "effective_batch_size": plan.batch.effective_batch_size,
            "kind": plan.batch.kind,
            "micro_batch_size": plan.batch.micro_batch_size,
            "gradient_accumulation_steps": plan.batch.gradient_accumulation_steps,
            "idle_share": idle_share(plan.batch, shape.world_size),
            "num_steps": plan.schedule.num_steps,
            "most_gpu_hours": plan.most_gpu_hours,
        }
    return facts | {
        "start": start and start.isoformat(timespec="seconds"),
        "end": end and end.isoformat(timespec="seconds"),
        "samples_per_s": option.samples_per_s,
        "is_measured": option.is_measured,
        "duration_s": option.duration_s,
        "gpu_hours": option.gpu_hours,
        "num_jobs": option.num_jobs,
    }
