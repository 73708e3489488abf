"""Recipes for tests of the training loop: small, but with ragged micro-batches and a short last window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CODE = Path(__file__).parent / "user_code"
POINTS = {
    "name": "points",
    "seed": 11,
    "model": {"target": "model:network"},
    "loss": {"target": "model:cross_entropy"},
    "metrics": {"accuracy": {"target": "model:accuracy"}},
    "datasets": [
        {"name": "first", "target": "data:Points", "args": {"size": 37}, "num_samples": 37},
        {"name": "second", "target": "data:Points", "args": {"size": 24, "seed": 1}, "num_samples": 24},
    ],
    "validation": [{"name": "heldout", "target": "data:Points", "args": {"size": 3, "seed": 2}, "num_samples": 3}],
    "batch": {"effective": 16, "micro": 3, "on_indivisible": "uneven"},
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01, "clip_norm": 0.3},
    "schedule": {"name": "cosine", "warmup": {"samples": 50}},
    "duration": {"samples": 322},
    "precision": "fp64",
    "loader": {"workers": 0},
    "checkpoint": {"every": {"steps": 3}, "keep": 2},
    "tracking": {"sample_ids": True},
}  # fmt: skip
SENTENCES = {
    **POINTS,
    "name": "sentences",
    "model": {"target": "model:Language"},
    "loss": {"target": "model:token_loss", "count": "data:count_tokens"},
    "metrics": {},
    "datasets": [{"name": "text", "target": "data:Sentences", "args": {"size": 30}, "num_samples": 30}],
    "validation": [],
    "duration": {"samples": 110},
}  # fmt: skip


def recipe(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`base` with other sections."""
    return {**base, **changes}
