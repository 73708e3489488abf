"""A recipe's own `command`, with `${plan.X}` replaced per argument from a fixed list. Pure; no shell ever sees it."""

from __future__ import annotations

import re
from pathlib import PurePath

from orchestrator.plan.plan import Plan

_REFERENCE = re.compile(r"\$\{plan\.([A-Za-z_]+)\}")


def plan_values(plan: Plan, run_dir: PurePath) -> dict[str, str]:
    """What a command may ask of its plan, by name, as text that reads back exactly."""
    return {
        "micro_batch_size": str(plan.batch.micro_batch_size),
        "gradient_accumulation_steps": str(plan.batch.gradient_accumulation_steps),
        "effective_batch_size": str(plan.batch.effective_batch_size),
        "world_size": str(plan.topology.world_size),
        "num_nodes": str(plan.topology.num_nodes),
        "gpus_per_node": str(plan.topology.gpus_per_node),
        "lr": repr(plan.learning_rate.peak_lr),
        "base_lr": repr(plan.learning_rate.base_lr),
        "num_steps": str(plan.schedule.num_steps),
        "warmup_steps": str(plan.schedule.warmup_steps),
        "total_samples": str(plan.schedule.total_samples),
        "run_dir": str(run_dir),
    }


def user_command(command: tuple[str, ...], plan: Plan, run_dir: PurePath, *, python: str) -> tuple[str, ...]:
    """`command` for each rank: plan values filled in; a script that ends in .py runs under `python`, as does `-m`."""
    values = plan_values(plan, run_dir)
    filled = tuple(_REFERENCE.sub(lambda match: values[match[1]], argument) for argument in command)
    return (python, *filled) if filled[0].endswith(".py") or filled[0] == "-m" else filled
