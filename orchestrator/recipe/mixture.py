"""How several datasets become one order of samples. Frozen; `check_mixture.py` says what goes with what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.field_types import Count, Name
from orchestrator.recipe.amounts import Positive
from orchestrator.recipe.section import Section


class MixtureEpoch(Section):
    """What one epoch of a mixture is: exactly one of samples, passes_of."""

    samples: Count | None = Field(default=None, description="So many samples of the mixture.")
    passes_of: Name | None = Field(
        default=None, description="As many samples of the mixture as one pass over this dataset takes."
    )


class Mixture(Section):
    """How the datasets share the order of samples. Without it they are concatenated, and shuffled as one."""

    strategy: Literal["concatenate", "weights", "temperature", "round_robin"] = Field(
        examples=["temperature"],
        description="concatenate: all samples once an epoch; weights: by each dataset's `weight`; temperature: shares "
        "proportional to size^(1/T), so that small datasets count for more; round_robin: one sample of each in turn.",
    )
    temperature: Positive = Field(
        default=3.0, description="T of strategy temperature: 1 goes by size, a large one makes all shares equal."
    )
    unit: Literal["samples", "tokens"] = Field(
        default="samples",
        description="What weights, sizes and shares count; tokens need `tokens_per_sample` (or `chars_per_sample`).",
    )
    epoch: MixtureEpoch | None = Field(
        default=None,
        description="What one epoch is (default: one pass over the dataset whose pass takes the most samples, so that "
        "an epoch passes over every dataset at least once; with drop: every sample once).",
    )
    exhaustion: Literal["repeat", "drop", "error"] = Field(
        default="repeat",
        description="After one pass over a dataset: repeat it in another order; drop it for the rest of the epoch, its "
        "share going to the others; or refuse a duration that would come to that.",
    )
