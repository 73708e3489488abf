"""The parts of a recipe that name the user's code and data: targets, datasets, losses, loaders. Frozen."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from orchestrator.field_types import MOST, Count, Name
from orchestrator.patterns import LANGUAGE, TARGET
from orchestrator.recipe.section import Section

TargetName = Annotated[str, Field(pattern=TARGET)]


class Target(Section):
    """Something of the user's, by name: `target: module:attribute`, looked up beside the recipe file first."""

    target: TargetName = Field(
        examples=["model:build"],
        description="`module:attribute`, looked up beside the recipe file first, then installed packages.",
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for it.")


class Dataset(Target):
    """A dataset with items `(inputs, targets)`, map-style unless it says `iterable`; its size is declared, because a
    plan opens no data."""

    name: Name = Field(examples=["train"], description="The name it has in plans, metrics and logs.")
    num_samples: Count = Field(
        examples=["50000"], description="Number of samples; the worker refuses a dataset of another size."
    )
    tokens_per_sample: Count | None = Field(default=None, description="Mean tokens in a sample, for budgets in tokens.")
    language: Annotated[str, Field(pattern=LANGUAGE)] | None = Field(
        default=None, description="Language of its text, such as en or zh: the four-characters rule holds for English."
    )
    chars_per_sample: Count | None = Field(
        default=None, description="Mean characters in a sample: four count as a token where tokens are not declared."
    )
    weight: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Its part of a mixture by weights, relative to the other weights."
    )
    iterable: bool = Field(
        default=False,
        description="It has `__iter__` and no `__getitem__`: a stream, read in its own order; its first `num_samples` "
        "items are a pass. Every loader process reads all of them; `set_epoch(pass)` is called where there is one.",
    )


class Loss(Target):
    """`f(outputs, targets) -> (sum, count)`: a sum over what counts, and how many that were."""

    count: TargetName | None = Field(
        default=None,
        description="`f(targets) -> int`, the same count before the forward pass (default: the number of samples).",
    )


class Loader(Section):
    """How samples reach the ranks. Changes speed, never the order."""

    workers: Annotated[int, Field(ge=0, le=MOST)] = Field(default=2, description="Loader processes per rank.")
    prefetch: Count = Field(default=2, description="Micro-batches each loader process keeps ready.")
    pin_memory: bool = Field(default=True, description="Page-locked host memory for copies to a GPU.")
    bad_samples: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many training samples that raise may be skipped in the whole run before it fails; each is "
        "journaled and counts for nothing. Above 0 a window is fetched whole before its first forward pass.",
    )
