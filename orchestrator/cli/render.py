"""Values as the text people read. Pure: data in, text out; nothing here prints or exits."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.launch.torchrun import Endpoint, World, torchrun_command, worker_command
from orchestrator.launch.user_command import user_command
from orchestrator.plan.batch import describe_sizes, window_shares
from orchestrator.plan.plan import Plan
from orchestrator.plan.tokens import CHARS_PER_TOKEN
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.runs import RunStatus
from orchestrator.units import format_count, format_lr, format_walltime

LEFT_WIDTH = 56
_SHAPES = {"constant": "constant", "cosine": "cosine", "inverse_sqrt": "inverse square root"}


def as_json(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def plan_screen(plan: Plan, recipe: Recipe, run_dir: RunDir, *, cwd: Path) -> str:
    """The screen of `orchestrate plan`: a row a subject, what it is on the left, its circumstances on the right."""
    rows = [
        ("topology", _topology(plan), _where(plan)),
        ("batch", _batch(plan), _accumulation(plan)),
        ("lr", _learning_rate(plan), _schedule(plan)),
        ("data", _data(plan), ""),
        ("horizon", _horizon(plan, recipe), _limits(plan, recipe)),
        ("run", str(run_dir.path.relative_to(cwd)), "job script and commands: --show script, --show torchrun"),
    ]
    lines = [f"{name:<10} {left:<{LEFT_WIDTH}} {right}".rstrip() for name, left, right in rows if left]
    lines += [f"{'warning':<10} {warning.code}: {warning.message}" for warning in plan.warnings]
    return "".join(f"{line}\n" for line in lines)


def _topology(plan: Plan) -> str:
    topology = plan.topology
    device = "GPU" if topology.accelerator == "cuda" else "CPU rank"
    nodes, devices = _plural(topology.num_nodes, "node"), _plural(topology.gpus_per_node, device)
    return f"{nodes} x {devices} = world size {topology.world_size}"


def _where(plan: Plan) -> str:
    topology = plan.topology
    place = f"partition {topology.partition}" if topology.partition else "this machine"
    return place if topology.walltime_s is None else f"{place}, walltime {format_walltime(topology.walltime_s)}"


def _batch(plan: Plan) -> str:
    batch, world_size = plan.batch, plan.topology.world_size
    size = format_count(batch.effective_batch_size)
    shares = window_shares(
        batch.effective_batch_size, world_size=world_size, largest_micro_batch=batch.largest_micro_batch
    )
    groups = {share: shares.count(share) for share in dict.fromkeys(shares)}
    ranks = " + ".join(f"{_plural(count, 'rank')} x ({describe_sizes(share)})" for share, count in groups.items())
    return f"{ranks} = {size} samples exactly"


def _accumulation(plan: Plan) -> str:
    most = plan.batch.largest_micro_batch
    limit = "no limit on the micro-batch" if most is None else f"micro-batch at most {most}"
    return f"{_plural(plan.batch.gradient_accumulation_steps, 'accumulation step')}; {limit}"


def _learning_rate(plan: Plan) -> str:
    rate, size = plan.learning_rate, format_count(plan.batch.effective_batch_size)
    if rate.rule == "none" or rate.base_batch_size is None:
        return f"{format_lr(rate.peak_lr)} at batch {size} ({rate.reason})"
    base = f"{format_lr(rate.base_lr)} at batch {format_count(rate.base_batch_size)}"
    return f"{base} -> {format_lr(rate.peak_lr)} at {size} ({rate.rule}: {rate.reason})"


def _schedule(plan: Plan) -> str:
    schedule = plan.schedule
    shape = _SHAPES[schedule.name]
    if not schedule.warmup_samples:
        return shape
    samples, steps = format_count(schedule.warmup_samples), _plural(schedule.warmup_steps, "step")
    return f"warm-up {samples} samples = {steps}, then {shape}"


def _data(plan: Plan) -> str:
    return " · ".join(
        f"{share.name} {format_count(share.num_samples)} samples, {share.passes:.3g} passes" for share in plan.data
    )


def _horizon(plan: Plan, recipe: Recipe) -> str:
    schedule = plan.schedule
    text = f"{_plural(schedule.num_steps, 'step')} = {format_count(schedule.total_samples)} samples"
    if plan.total_tokens is None:
        return text
    by_rule = any(dataset.tokens_per_sample is None for dataset in recipe.datasets)
    rule = f", {CHARS_PER_TOKEN} characters each" if by_rule else ""
    return f"{text} = about {_millions(plan.total_tokens)} tokens{rule}"


def _limits(plan: Plan, recipe: Recipe) -> str:
    parts = [f"checkpoint every {_cadence(recipe.checkpoint.every)}"]
    if plan.most_gpu_hours is not None:
        unit = "GPU-hours" if plan.topology.accelerator == "cuda" else "rank-hours"
        parts.append(f"at most {plan.most_gpu_hours:.1f} {unit}")
    return ", ".join(parts)


def _cadence(every: Any) -> str:
    unit, amount = next((unit, value) for unit, value in every.model_dump().items() if value is not None)
    return f"{amount:g} {unit}" if amount != 1 else unit.removesuffix("s")


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else format_count(count)


def _plural(count: int, noun: str) -> str:
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"


def torchrun_commands(recipe: Recipe, plan: Plan, run_dir: RunDir) -> str:
    """Each node's torchrun command, a paragraph a node, to paste on that node.

    The driver knows the head node's address, a free port and a fresh id only inside the job: they stand here as names.
    """
    topology = plan.topology
    world = World(
        run_dir=run_dir.path,
        attempt=0,
        rdzv_id="ID",
        endpoint=Endpoint("HEAD_ADDRESS", 0),
        num_nodes=topology.num_nodes,
        gpus_per_node=topology.gpus_per_node,
        shutdown_timeout_s=0,
    )
    if recipe.command:
        each = user_command(recipe.command, plan, run_dir.path, python=sys.executable)
    else:
        each = worker_command(run_dir.path, 0, python=sys.executable)
    lines = ["# The driver fills in HEAD_ADDRESS, PORT, ID and SECONDS when the job has its nodes."]
    for node_rank in range(topology.num_nodes):
        words = torchrun_command(world, node_rank=node_rank, command=each, python=sys.executable)
        line = shlex.join(words).replace("--master-port=0", "--master-port=PORT")
        lines += [f"# node {node_rank}", line.replace("--shutdown-timeout=0", "--shutdown-timeout=SECONDS")]
    return "".join(f"{line}\n" for line in lines)


def submitted(facts: dict[str, Any]) -> str:
    """What `submit` prints when it returns: what a person needs next, one thing a line."""
    lines = [f"run    {facts['run_dir']}", f"job    {facts['job_id']}", f"track  {facts['mlflow_ui']}"]
    return "".join(f"{line}\n" for line in lines)


def status_table(rows: Sequence[RunStatus]) -> str:
    """Runs, one a line, aligned."""
    cells = [
        (row.name, row.state, row.job_id or "-", _step(row), ",".join(row.nodes) or "-", row.reason) for row in rows
    ]
    table = [("RUN", "STATE", "JOB", "STEP", "NODES", "WHY"), *cells]
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    aligned = ("  ".join(f"{cell:<{width}}" for cell, width in zip(line, [*widths, 0], strict=True)) for line in table)
    return "".join(f"{line.rstrip()}\n" for line in aligned)


def _step(row: RunStatus) -> str:
    if row.step is None:
        return "-"
    return str(row.step) if row.num_steps is None else f"{row.step}/{row.num_steps}"


def progress_line(row: RunStatus) -> str:
    """One line of talk about a run that is being waited for."""
    loss = row.metrics.get("train/loss")
    tail = "" if loss is None else f", loss {loss:.4g}"
    return f"{row.name}: {row.state}" if row.step is None else f"{row.name}: {row.state}, step {_step(row)}{tail}"


def outcome(row: RunStatus) -> str:
    """How a run ended: its last validation metrics, or why it failed."""
    lines = [f"{row.state}   {row.reason}".rstrip()]
    lines += [f"{name:<16} {value:.6g}" for name, value in sorted(row.metrics.items()) if name.startswith("val/")]
    return "".join(f"{line}\n" for line in lines)
