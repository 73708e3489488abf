"""The parts of a recipe that name the user's code and data: targets, datasets, losses, loaders. Frozen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

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


class Metric(Target):
    """`f(outputs, targets) -> (sum, count)`, on validation sets. One that is `given: model` may have it generate:
    `f(model, inputs, targets) -> (sums, count)`."""

    given: Literal["outputs", "model"] = Field(
        default="outputs", description="What it is called with: the model's outputs, or the model and the inputs."
    )
    finish: TargetName | None = Field(
        default=None,
        description="`f(sums, count) -> number`, of what all batches and ranks have added up, `sums` being a list: for "
        "what is no mean, such as BLEU (default: sum / count).",
    )
    gives: tuple[Name, ...] = Field(
        default=(),
        strict=False,
        description="The names of several numbers, where `finish` makes a mapping (default: the metric's own name).",
    )


def _off(value: object) -> object:
    """YAML 1.1 reads `off` as false."""
    return "off" if value is False else value


TuningMode = Annotated[Literal["off", "suggest", "auto"], BeforeValidator(_off)]


class Tuning(Section):
    """What may be changed while a run trains, by what its steps show. Never changes the order."""

    workers: TuningMode | None = Field(
        default=None,
        description="The number of loader processes, and the micro-batches that each has ready: leave them, say in the "
        "log what would be better, or change them and keep what makes steps at least 3 % shorter, or does as much with "
        "fewer processes. All ranks change them after the same step (default: auto; off with `loader.workers: 0`, in "
        "a command, and with iterable datasets).",
    )
    amp: TuningMode = Field(
        default="suggest",
        description="The precision of an fp32 recipe whose steps wait for no data: leave it, say in the log what might "
        "be faster, or try it: TF32, then bf16 or fp16, whichever the GPUs have. One is tried only if it gives the "
        "gradients of fp32 for the same samples, kept if it makes steps 8 % faster, looked at again now and then, and "
        "taken back, with the steps since the last checkpoint, if a loss is no number. Not in a command.",
    )


class Loader(Section):
    """How samples reach the ranks. Changes speed, never the order."""

    workers: Annotated[int, Field(ge=0, le=MOST)] = Field(default=2, description="Loader processes per rank.")
    prefetch: Count = Field(default=2, description="Micro-batches each loader process keeps ready.")
    pin_memory: bool = Field(default=True, description="Page-locked host memory for copies to a GPU.")
    group_by_length: bool = Field(
        default=False,
        description="Share each window so that what is computed together is of about one length, by the datasets' own "
        "`lengths`, one number a sample: less padding. The samples of a window stay the same.",
    )
    bad_samples: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many training samples that raise may be skipped in the whole run before it fails; each is "
        "journaled and counts for nothing. Above 0 a window is fetched whole before its first forward pass.",
    )
