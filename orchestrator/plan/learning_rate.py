"""How the learning rate follows the batch. Pure; the factor is relative to the recipe's own reference batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Rule = Literal["linear", "sqrt", "none"]

RULE_OF_OPTIMIZER: dict[str, Rule] = {"sgd": "linear", "adam": "sqrt", "adamw": "sqrt"}


@dataclass(frozen=True)
class LearningRatePlan:
    """The peak learning rate and where it comes from."""

    base_lr: float
    base_batch_size: int | None
    rule: Rule
    factor: float
    peak_lr: float
    reason: str


def linear_scaling(base_lr: float, *, base_batch_size: int, effective_batch_size: int) -> float:
    """lr = base_lr * B / B0, B and B0 in samples per optimizer step: k small SGD steps become one k times as long.

    Source: Goyal et al. 2017 (arXiv:1706.02677), the linear scaling rule for SGD with momentum.
    """
    return base_lr * effective_batch_size / base_batch_size


def sqrt_scaling(base_lr: float, *, base_batch_size: int, effective_batch_size: int) -> float:
    """lr = base_lr * sqrt(B / B0), B and B0 in samples per optimizer step: the variance of Adam's update stays put.

    Source: Malladi et al. 2022 (arXiv:2205.10287), the square-root scaling rule for Adam and RMSProp.
    """
    return base_lr * math.sqrt(effective_batch_size / base_batch_size)


def plan_learning_rate(
    base_lr: float,
    *,
    optimizer: str,
    scaling: Literal["auto", "linear", "sqrt", "none"],
    base_batch_size: int | None,
    effective_batch_size: int,
) -> LearningRatePlan:
    """The peak lr at the effective batch; without a reference batch the lr is taken as it is."""
    rule = RULE_OF_OPTIMIZER[optimizer] if scaling == "auto" else scaling
    if base_batch_size is None or rule == "none":
        reason = "as written" if rule == "none" else "as written: no base_batch"
        return LearningRatePlan(base_lr, base_batch_size, "none", 1.0, base_lr, reason)
    scale = linear_scaling if rule == "linear" else sqrt_scaling
    peak_lr = scale(base_lr, base_batch_size=base_batch_size, effective_batch_size=effective_batch_size)
    reason = optimizer if scaling == "auto" else "as the recipe says"
    return LearningRatePlan(base_lr, base_batch_size, rule, peak_lr / base_lr, peak_lr, reason)
