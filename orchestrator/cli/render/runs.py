"""Runs as the text people read: what was submitted, a table of states, progress, an outcome. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.cli.render.text import aligned
from orchestrator.submit.runs import RunStatus
from orchestrator.units import format_walltime


def submitted(facts: dict[str, Any]) -> str:
    """What `submit` prints when it returns: what a person needs next, one thing a line."""
    lines = [f"run    {facts['run_dir']}", f"job    {facts['job_id']}", f"track  {facts['mlflow_ui']}"]
    return "".join(f"{line}\n" for line in lines)


def status_table(rows: Sequence[RunStatus]) -> str:
    """Runs, one a line, aligned."""
    cells = [
        (row.name, row.state, row.job_id or "-", step_text(row), ",".join(row.nodes) or "-", row.reason) for row in rows
    ]
    return aligned([("RUN", "STATE", "JOB", "STEP", "NODES", "WHY"), *cells])


def step_text(row: RunStatus) -> str:
    """'51/300': the last step that is known of, of how many; '-' before the first one."""
    if row.step is None:
        return "-"
    return str(row.step) if row.num_steps is None else f"{row.step}/{row.num_steps}"


def progress_line(row: RunStatus) -> str:
    """One line of talk about a run that is being waited for."""
    loss = row.metrics.get("train/loss")
    tail = "" if loss is None else f", loss {float(loss):.4g}"
    told = f"{row.name}: {row.state}" if row.step is None else f"{row.name}: {row.state}, step {step_text(row)}{tail}"
    return f"{told}: {row.reason}" if row.reason and row.state in ("failed", "lost") else told


def live_line(row: RunStatus) -> str:
    """The same with its speed, and about how long it still takes."""
    step_s, rate = (row.metrics.get(f"train/{name}") for name in ("step_time_s", "samples_per_s"))
    told = progress_line(row)
    if row.state != "running" or row.step is None or not isinstance(step_s, int | float):
        return told
    if isinstance(rate, int | float):
        told += f", {step_s:.3g} s a step, {rate:,.0f} samples/s"
    if row.num_steps is not None:
        told += f", about {format_walltime(round((row.num_steps - row.step) * step_s))} left"
    return told


def outcome(row: RunStatus) -> str:
    """How a run ended: its last validation metrics, or why it failed."""
    lines = [f"{row.state}   {row.reason}".rstrip()]
    lines += [
        f"{name:<16} {float(value):.6g}" for name, value in sorted(row.metrics.items()) if name.startswith("val/")
    ]
    return "".join(f"{line}\n" for line in lines)
