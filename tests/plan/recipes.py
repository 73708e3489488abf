"""A recipe to plan, and changes of it."""

from __future__ import annotations

from typing import Any

from orchestrator.recipe.schema import Recipe


def recipe(**changes: Any) -> Recipe:
    """The handbook's example, with other sections."""
    values: dict[str, Any] = {
        "name": "toy",
        "datasets": [{"name": "a", "target": "data:a", "num_samples": 3000, "tokens_per_sample": 20}],
        "batch": {"effective": 488, "micro": 16},
        "optimizer": {"name": "adamw", "lr": 5e-4, "base_batch": 256},
        "schedule": {"name": "inverse_sqrt", "warmup": {"samples": 51_200}},
        "duration": {"samples": 649_528},
        "resources": {"walltime": "0:30:00"},
    }
    return Recipe.model_validate(values | changes)
