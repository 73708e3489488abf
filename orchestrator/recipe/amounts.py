"""Lengths and cadences of training, each in exactly one unit. Frozen; `check.py` asks for the one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.field_types import LARGEST, Count
from orchestrator.recipe.section import Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]


class Amount(Section):
    """A length of training in exactly one unit."""

    samples: Count | None = Field(default=None, description="Samples.")
    steps: Count | None = Field(default=None, description="Optimizer steps at the planned effective batch.")
    epochs: Positive | None = Field(
        default=None, description="Passes over all declared samples, or what `mixture.epoch` says."
    )


class Duration(Amount):
    """How long to train: exactly one of samples, steps, epochs, tokens."""

    tokens: Count | None = Field(
        default=None, description="Tokens; needs `tokens_per_sample` (or `chars_per_sample`) on every dataset."
    )


class Warmup(Amount):
    """Linear warm-up of the lr from zero: exactly one of samples, steps, epochs, ratio."""

    ratio: Fraction | None = Field(default=None, description="Fraction of the whole duration.")


class Cadence(Amount):
    """How often: exactly one of samples, steps, epochs, minutes."""

    minutes: Positive | None = Field(default=None, description="Minutes of wall time.")


class EvaluationCadence(Amount):
    """How often: exactly one of samples, steps, epochs."""
