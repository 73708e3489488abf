"""The screen of `orchestrate plan`, and the commands it shows. Pure: data in, text out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster import Cluster
from orchestrator.launch.torchrun import Endpoint, World, signals_for, torchrun_command, worker_command
from orchestrator.launch.user_command import user_command
from orchestrator.plan.batch import describe_runs
from orchestrator.plan.effective import has_one_size
from orchestrator.plan.plan import DataShare, Plan, decisive_limit
from orchestrator.plan.tokens import CHARS_PER_TOKEN, is_estimated
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from orchestrator.units import format_count, format_lr, format_walltime, plural

if TYPE_CHECKING:
    from orchestrator.submit.live import LiveReport

LEFT_WIDTH = 56
_SHAPES = {"constant": "constant", "cosine": "cosine", "inverse_sqrt": "inverse square root"}


def plan_screen(plan: Plan, recipe: Recipe, run_dir: RunDir, *, cwd: Path, live: LiveReport | None = None) -> str:
    """The screen of `orchestrate plan`: a row a subject, what it is on the left, its circumstances on the right."""
    rows = [
        ("topology", _topology(plan), _where(plan)),
        ("batch", _batch(plan), _accumulation(plan, recipe)),
        ("lr", _learning_rate(plan), _schedule(plan)),
        ("data", _data(plan), _epoch(plan)),
        ("horizon", _horizon(plan, recipe), _limits(plan, recipe)),
        ("start", live.start.text if live and live.start else "", ""),
        ("run", str(run_dir.path.relative_to(cwd)), "job script and commands: --show script, --show torchrun"),
    ]
    lines = [f"{name:<10} {left:<{LEFT_WIDTH}} {right}".rstrip() for name, left, right in rows if left]
    lines += [f"{'warning':<10} {warning.code}: {warning.message}" for warning in plan.warnings]
    lines += [f"{'unchecked':<10} {one.what}: {one.why}" for one in (live.unchecked if live else ())]
    return "".join(f"{line}\n" for line in lines)


def _topology(plan: Plan) -> str:
    topology = plan.topology
    device = "GPU" if topology.accelerator == "cuda" else "CPU rank"
    nodes, devices = plural(topology.num_nodes, "node"), plural(topology.gpus_per_node, device)
    return f"{nodes} x {devices} = world size {topology.world_size}"


def _where(plan: Plan) -> str:
    topology = plan.topology
    place = f"partition {topology.partition}" if topology.partition else "this machine"
    return place if topology.walltime_s is None else f"{place}, walltime {format_walltime(topology.walltime_s)}"


def _batch(plan: Plan) -> str:
    batch = plan.batch
    groups = batch.groups(plan.topology.world_size)
    ranks = " + ".join(f"{plural(count, 'rank')} x ({describe_runs(runs)})" for count, runs in groups)
    size = plural(batch.effective_batch_size, "sample")
    if batch.unit == "tokens":
        size += f" = {format_count(batch.effective_in_unit)} tokens"
    return f"{ranks} = {size} exactly"


def _accumulation(plan: Plan, recipe: Recipe) -> str:
    most = plan.batch.largest_micro_batch
    limit = "no limit on the micro-batch" if most is None else f"micro-batch at most {most}"
    if most is not None and has_one_size(recipe):
        limit = f"micro-batches of one size, {most}"
    elif plan.memory is not None:
        limit = f"largest micro-batch that fits: {most} ({plan.memory.by})"
    if learnt := decisive_limit(plan, recipe):
        limit = f"{limit.partition(' (')[0]} (learnt: ran out of memory at {learnt.failed})"
    return f"{plural(plan.batch.gradient_accumulation_steps, 'accumulation step')}; {limit}"


def _learning_rate(plan: Plan) -> str:
    rate, size = plan.learning_rate, format_count(plan.batch.effective_in_unit)
    if rate.rule == "none" or rate.base_batch_size is None:
        return f"{format_lr(rate.peak_lr)} at batch {size} ({rate.reason})"
    base = f"{format_lr(rate.base_lr)} at batch {format_count(rate.base_batch_size)}"
    tokens = " tokens" if plan.batch.unit == "tokens" else ""
    return f"{base} -> {format_lr(rate.peak_lr)} at {size}{tokens} ({rate.rule}: {rate.reason})"


def _schedule(plan: Plan) -> str:
    schedule = plan.schedule
    shape = _SHAPES[schedule.name]
    if not schedule.warmup_samples:
        return shape
    samples, steps = plural(schedule.warmup_samples, "sample"), plural(schedule.warmup_steps, "step")
    return f"warm-up {samples} = {steps}, then {shape}"


def _data(plan: Plan) -> str:
    def row(share: DataShare) -> str:
        part = f", {share.part:.1%} of all" if len(plan.data) > 1 else ""
        return f"{share.name} {plural(share.num_samples, 'sample')}{part}, {_passes(share.passes)}"

    return " · ".join(map(row, plan.data))


def _epoch(plan: Plan) -> str:
    """How the datasets are mixed; '' where they are concatenated."""
    if plan.mixture is None:
        return ""
    epoch = format_count(plan.schedule.samples_per_epoch or 0)
    return f"{plan.mixture.strategy}, {plan.mixture.exhaustion}; an epoch is {epoch} samples"


def _passes(passes: float) -> str:
    if passes == 1:
        return "1 pass"
    return f"{passes:.3g} passes" if passes < 1000 else f"{passes:,.0f} passes"


def _horizon(plan: Plan, recipe: Recipe) -> str:
    schedule = plan.schedule
    text = f"{plural(schedule.num_steps, 'step')} = {plural(schedule.total_samples, 'sample')}"
    if plan.total_tokens is None:
        return text
    if plan.batch.unit == "tokens":
        return f"{text} = {_millions(plan.total_tokens)} tokens"
    rule = f", {CHARS_PER_TOKEN} characters each" if any(map(is_estimated, recipe.datasets)) else ""
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


def torchrun_commands(recipe: Recipe, plan: Plan, run_dir: RunDir, cluster: Cluster) -> str:
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
        signals=signals_for(cluster.scheduler),
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
