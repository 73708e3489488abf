"""The horizon and the learning rate as functions of consumed samples. Pure.

The plan prints and the worker calls the same `lr_at`: there is no scheduler state to save, restore or get wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from orchestrator.recipe.amounts import Amount, Duration, Warmup


@dataclass(frozen=True)
class SchedulePlan:
    """Warm-up and horizon in samples, the clock of a run; steps are derived."""

    name: Literal["constant", "cosine", "inverse_sqrt"]
    final_ratio: float
    warmup_samples: int
    warmup_steps: int
    total_samples: int
    num_steps: int
    samples_per_epoch: int | None


def samples_in(amount: Amount, *, effective_batch_size: int, samples_per_epoch: int | None) -> int:
    """`amount` in samples, rounded up; epochs need the declared sizes of the datasets.

    An epoch count is read as the decimal that was written (1.1 epochs of 10 samples are 11, not 12).
    """
    if amount.samples is not None:
        return amount.samples
    if amount.steps is not None:
        return amount.steps * effective_batch_size
    assert amount.epochs is not None and samples_per_epoch is not None, "check_recipe lets one unit through"
    return math.ceil(Fraction(str(amount.epochs)) * samples_per_epoch)


def total_samples(
    duration: Duration, *, effective_batch_size: int, samples_per_epoch: int | None, tokens_per_sample: Fraction | None
) -> int:
    """The whole run in samples; tokens by their mean in a sample, rounded up."""
    if duration.tokens is not None:
        assert tokens_per_sample, "check_recipe asks for tokens_per_sample"
        return math.ceil(duration.tokens / tokens_per_sample)
    return samples_in(duration, effective_batch_size=effective_batch_size, samples_per_epoch=samples_per_epoch)


def warmup_samples(
    warmup: Warmup | None, *, total: int, effective_batch_size: int, samples_per_epoch: int | None
) -> int:
    """The warm-up in samples, rounded up; a ratio is one of the whole run."""
    if warmup is None:
        return 0
    if warmup.ratio is not None:
        return math.ceil(Fraction(str(warmup.ratio)) * total)
    return samples_in(warmup, effective_batch_size=effective_batch_size, samples_per_epoch=samples_per_epoch)


def num_steps(samples: int, effective_batch_size: int) -> int:
    """Optimizer steps that consume `samples`: ceil(samples / B); only the last window may be short."""
    return -(-samples // effective_batch_size)


def lr_at(consumed_samples: int, *, peak_lr: float, schedule: SchedulePlan, effective_batch_size: int) -> float:
    """The learning rate of the step whose window begins at `consumed_samples`.

    Warm-up is linear and its first step already learns: the step is taken at the end of its window,
    lr = peak * min(1, (consumed + B) / warmup). After it, with x = consumed samples and w = warm-up samples:
    constant: peak; cosine: final + (peak - final) * (1 + cos(pi * (x - w) / (total - w))) / 2;
    inverse_sqrt: peak * sqrt(w / x). Sources: Loshchilov and Hutter 2017 (arXiv:1608.03983), Vaswani et al. 2017
    (arXiv:1706.03762).
    """
    window_end = consumed_samples + effective_batch_size
    if window_end <= schedule.warmup_samples:
        return peak_lr * window_end / schedule.warmup_samples
    if schedule.name == "cosine":
        span = max(schedule.total_samples - schedule.warmup_samples, 1)
        progress = min(max(consumed_samples - schedule.warmup_samples, 0) / span, 1.0)
        return peak_lr * (schedule.final_ratio + (1 - schedule.final_ratio) * (1 + math.cos(math.pi * progress)) / 2)
    if schedule.name == "inverse_sqrt":
        return peak_lr * math.sqrt(schedule.warmup_samples / max(consumed_samples, schedule.warmup_samples))
    return peak_lr
