"""The names that a recipe's `command` may ask the plan for, as `${plan.NAME}`. Pure data."""

from __future__ import annotations

from collections.abc import Sequence

PLAN_NAMES: dict[str, str] = {
    "micro_batch_size": "Largest micro-batch of any rank, in samples.",
    "gradient_accumulation_steps": "Micro-steps per optimizer step.",
    "effective_batch_size": "Samples per optimizer step, over all ranks.",
    "world_size": "Ranks.",
    "num_nodes": "Nodes.",
    "gpus_per_node": "Ranks per node.",
    "lr": "Peak learning rate at the effective batch.",
    "base_lr": "Learning rate as the recipe gives it.",
    "num_steps": "Optimizer steps in the whole run.",
    "warmup_steps": "Optimizer steps of warm-up.",
    "total_samples": "Samples in the whole run.",
    "run_dir": "Absolute path of the run directory.",
}
"""Name -> what it is."""

_SIZES = ("${plan.micro_batch_size}", "${plan.gradient_accumulation_steps}")


def asks_for_sizes(command: Sequence[str]) -> bool:
    """Whether a command is told the one size of all its micro-batches, or their number."""
    return any(size in argument for argument in command for size in _SIZES)
