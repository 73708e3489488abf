"""How fast earlier runs of a recipe went, and what that lets one expect of another world. Reads ./runs, asks nobody.

What is measured is the time of a micro-step: all ranks make them together, so it hardly depends on how many there are,
as long as micro-batch and hardware stay the same. An attempt's speed is its consumed samples over the time between
its first and its last step, evaluations and checkpoints in between included, start-up not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster import Cluster
from orchestrator.errors import OrchestratorError
from orchestrator.files import decode_record, read_json
from orchestrator.known_runs import all_runs
from orchestrator.plan.plan import Plan, plan_from_json
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.tracking.records import each_step

LEAST_ELAPSED_S = 1.0
"""A shorter stretch of steps says little about a long one."""
_END_BYTES = 1 << 16
_SAME_SPEED: dict[str, Any] = {
    **dict.fromkeys(("name", "model", "datasets", "loss", "command"), True),
    **dict.fromkeys(("precision", "activation_checkpointing", "compile"), True),
    "loader": True,
    "batch": {"effective", "per_gpu", "unit", "sequence_length"},
    "optimizer": {"name", "target"},
}
"""What two recipes must have in common for one to say how fast the other is."""


@dataclass(frozen=True)
class Measurement:
    """The speed of one attempt of an earlier run."""

    run: str
    hardware: str
    world_size: int
    micro_batch_size: int
    micro_step_s: float
    """Seconds per micro-step: those of an optimizer step over its accumulation steps."""
    samples_per_s: float


@dataclass(frozen=True)
class Speed:
    """What to expect of a plan: samples per second of the whole world, and the runs that say so."""

    samples_per_s: float
    is_measured: bool
    """Measured on as many ranks; else predicted from other worlds."""
    sources: tuple[Measurement, ...]


def hardware_of(cluster: Cluster, partition: str | None, accelerator: str) -> str:
    """What a rank computes on, as far as a profile tells: the GPU's type, else the nodes of this site's partition."""
    found = cluster.partitions.get(partition or "")
    if found is None:
        return f"{accelerator}, {cluster.name}, {partition or 'this machine'}"
    nodes = found.nodes
    if accelerator == "cuda" and nodes.gpu_type:
        return nodes.gpu_type
    return f"{accelerator}, {cluster.name}, {nodes.gpus} GPUs, {nodes.cpus} cores, {nodes.memory}"


def measurements(recipe: Recipe, *, cwd: Path) -> list[Measurement]:
    """What the attempts of runs under `<cwd>/runs` with the same name, model, data and batch measured; oldest first."""
    wanted = _speed_sections(recipe)
    runs = (run for run in all_runs(cwd) if _speed_sections_of(run) == wanted)
    return [found for run in runs for found in _measured(run)]


def _speed_sections(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", include=_SAME_SPEED)


def _speed_sections_of(run: RunDir) -> dict[str, Any] | None:
    try:
        return _speed_sections(recipe_from_stored(run.recipe.read_text(), str(run.recipe)))
    except (OSError, ValueError, OrchestratorError):
        return None


def _measured(run: RunDir) -> Iterator[Measurement]:
    cluster = Cluster.model_validate(read_json(run.cluster))
    for attempt in run.all_attempts():
        plan, samples_per_s = _plan_of(attempt), _samples_per_s(run, attempt)
        if plan is not None and samples_per_s is not None:
            batch, topology = plan.batch, plan.topology
            yield Measurement(
                run=run.path.name,
                hardware=hardware_of(cluster, topology.partition, topology.accelerator),
                world_size=topology.world_size,
                micro_batch_size=batch.micro_batch_size,
                micro_step_s=batch.effective_batch_size / samples_per_s / batch.gradient_accumulation_steps,
                samples_per_s=samples_per_s,
            )


def _plan_of(attempt: AttemptDir) -> Plan | None:
    """What the attempt really ran; None where its driver left no plan, or one that this version cannot read."""
    value = read_json(attempt.plan)
    try:
        return None if value is None else plan_from_json(value)
    except (TypeError, KeyError):
        return None


def _samples_per_s(run: RunDir, attempt: AttemptDir) -> float | None:
    """Samples per second between an attempt's first and last step; None where that stretch is too short."""
    for path in run.journal.glob(f"{attempt.path.name}.*.rank-0.log"):
        (first_ms, first_samples), (last_ms, last_samples) = _first_and_last_step(path)
        if last_ms - first_ms >= LEAST_ELAPSED_S * 1000:
            return (last_samples - first_samples) / (last_ms - first_ms) * 1000
    return None


def _first_and_last_step(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(milliseconds, consumed samples) of the first and of the last step in a journal, read from its two ends."""
    with path.open("rb") as file:
        head = file.read(_END_BYTES).split(b"\n")
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        tail = file.read().split(b"\n")
    first = next(_steps(head), (0, 0))
    return first, max(_steps(tail), default=first)


def _steps(lines: Any) -> Iterator[tuple[int, int]]:
    for record in filter(None, map(decode_record, lines)):
        for step in each_step(record):
            samples = step.get("values", {}).get("progress/samples")
            if samples is not None:
                yield step["time_ms"], samples


def speed_of(plan: Plan, hardware: str, measured: Sequence[Measurement]) -> Speed | None:
    """What to expect of `plan`: samples per second = B / (a * t), with t the seconds of a micro-step.

    t is the newest one measured at the same micro-batch on the same hardware: on as many ranks, else on one other
    world (the speed is then linear in the world size), else by a power law through the two nearest worlds, t never
    falling as the world grows. None where nothing was measured.
    """
    batch, world_size = plan.batch, plan.topology.world_size
    by_world = {
        found.world_size: found
        for found in measured
        if found.hardware == hardware and found.micro_batch_size == batch.micro_batch_size
    }
    if not by_world:
        return None
    near = sorted(by_world.values(), key=lambda found: abs(math.log(found.world_size / world_size)))
    sources = near[:1] if near[0].world_size == world_size else near[:2]
    micro_step_s = sources[0].micro_step_s * (world_size / sources[0].world_size) ** _growth(sources)
    samples_per_s = batch.effective_batch_size / batch.gradient_accumulation_steps / micro_step_s
    return Speed(samples_per_s, is_measured=sources[0].world_size == world_size, sources=tuple(sources))


def _growth(sources: Sequence[Measurement]) -> float:
    """The exponent by which a micro-step's time grows with the world size; 0 from a single world."""
    if len(sources) == 1:
        return 0.0
    one, other = sources
    return max(0.0, math.log(other.micro_step_s / one.micro_step_s) / math.log(other.world_size / one.world_size))
