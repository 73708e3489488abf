"""How the learning rate follows the batch. Pure; the factor is relative to the recipe's own reference batch.

With k = B / B0, the batch over that reference, other settings would have to follow it too: which, and to what values,
is computed here and printed by `plan --explain`. It is never done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import Problem
from orchestrator.recipe.schema import Optimizer

Rule = Literal["linear", "sqrt", "none"]

RULE_OF_OPTIMIZER: dict[str, Rule] = {
    "sgd": "linear",
    "lars": "linear",
    **dict.fromkeys(("adam", "adamw", "nadam", "radam", "rmsprop", "adafactor", "lamb"), "sqrt"),
}
"""What `scaling: auto` means. Any other optimizer has no rule: nothing is guessed for it."""

ADAM_FAMILY = frozenset({"adam", "adamw", "nadam", "radam"})
"""Optimizers whose two decay rates the recipe sets as `betas`."""

RMSPROP_ALPHA = 0.99
"""The decay rate of torch's RMSprop, which no recipe sets."""

_DECOUPLED_DECAY = frozenset({"adamw", "adafactor"})


@dataclass(frozen=True)
class CoScaled:
    """A setting that would have to follow the batch as well, and its value then. Printed, never done."""

    name: Literal["beta2", "alpha", "eps", "weight_decay"]
    value: float
    scaled: float


@dataclass(frozen=True)
class LearningRatePlan:
    """The peak learning rate and where it comes from. `base_batch_size` is in the recipe's unit of batches."""

    base_lr: float
    base_batch_size: int | None
    rule: Rule
    factor: float
    peak_lr: float
    reason: str
    batch_ratio: float = 1.0
    """k: the effective batch over the base batch; 1 where there is none."""
    would_scale: tuple[CoScaled, ...] = ()


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


def half_life_beta(beta: float, batch_ratio: float) -> float:
    """beta ** k: the decay rate whose half-life, counted in samples, is the same at k times the batch.

    Source: Marek et al. 2025 (arXiv:2507.07101). To first order it is Malladi's 1 - k(1 - beta), and never negative.
    """
    return float(beta**batch_ratio)


def scaled_eps(eps: float, batch_ratio: float) -> float:
    """eps / sqrt(k): it keeps its size beside the root of the second moment, in which the noise falls as sqrt(k).

    Source: Malladi et al. 2022 (arXiv:2205.10287).
    """
    return eps / math.sqrt(batch_ratio)


def scaled_weight_decay(weight_decay: float, batch_ratio: float, *, lr_factor: float) -> float:
    """wd * k / (lr' / lr): decoupled decay averages the weights over as many samples as before, B / (lr wd) of them.

    Source: Wang and Aitchison 2024 (arXiv:2405.13698).
    """
    return weight_decay * batch_ratio / lr_factor


def plan_learning_rate(
    optimizer: Optimizer, *, effective_batch_size: int, requested: int | None = None
) -> LearningRatePlan | Problem:
    """The peak lr at the effective batch (in the unit of `base_batch`); without a base batch it is taken as it is.

    Where the ranks got another batch than was `requested`, that one is the base batch of a recipe without any, if
    there is a rule. A Problem at `optimizer.scaling` where the rule would have to be guessed, or at `optimizer.lr`
    where the peak is no number above zero.
    """
    base_lr, base = optimizer.lr, optimizer.base_batch
    if base is None and optimizer.scaling == "auto" and optimizer.name in RULE_OF_OPTIMIZER:
        base = requested if requested != effective_batch_size else None
    if base is None:
        reason = "as written" if optimizer.scaling == "none" else "as written: no base_batch"
        return LearningRatePlan(base_lr, None, "none", 1.0, base_lr, reason)
    rule = RULE_OF_OPTIMIZER.get(optimizer.name) if optimizer.scaling == "auto" else optimizer.scaling
    if rule is None and effective_batch_size == base:
        return LearningRatePlan(base_lr, base, "none", 1.0, base_lr, "the base batch itself")
    if rule is None:
        what = f"the batch is {effective_batch_size}, lr belongs to {base}, and no rule is known for this optimizer"
        return Problem("optimizer.scaling", what, "write scaling: linear, sqrt or none: nothing is guessed here")
    peak_lr, factor = base_lr, 1.0
    if rule != "none":
        scale = linear_scaling if rule == "linear" else sqrt_scaling
        peak_lr, factor = (
            scale(lr, base_batch_size=base, effective_batch_size=effective_batch_size) for lr in (base_lr, 1.0)
        )
    if not 0 < peak_lr < math.inf:
        what = f"scaled from batch {base} to {effective_batch_size} it is {peak_lr:g}, which trains nothing"
        return Problem("optimizer.lr", what, "write an lr and a base_batch that belong to each other")
    return LearningRatePlan(
        base_lr=base_lr,
        base_batch_size=base,
        rule=rule,
        factor=factor,
        peak_lr=peak_lr,
        reason=_reason(optimizer, rule),
        batch_ratio=effective_batch_size / base,
        would_scale=tuple(_co_scaled(optimizer, effective_batch_size / base, factor)),
    )


def _reason(optimizer: Optimizer, rule: Rule) -> str:
    if rule == "none":
        return "as written"
    return optimizer.name if optimizer.scaling == "auto" else "as the recipe says"


def _co_scaled(optimizer: Optimizer, batch_ratio: float, lr_factor: float) -> Iterator[CoScaled]:
    """What else would follow the batch, where there is an accepted rule and the recipe or torch says the value now."""
    if batch_ratio == 1:
        return
    if optimizer.name in ADAM_FAMILY:
        beta2 = optimizer.betas[1]
        yield CoScaled("beta2", beta2, half_life_beta(beta2, batch_ratio))
    if optimizer.name == "rmsprop":
        yield CoScaled("alpha", RMSPROP_ALPHA, half_life_beta(RMSPROP_ALPHA, batch_ratio))
    if optimizer.name in ADAM_FAMILY or optimizer.name == "rmsprop":
        yield CoScaled("eps", optimizer.eps, scaled_eps(optimizer.eps, batch_ratio))
    if optimizer.name in _DECOUPLED_DECAY and optimizer.weight_decay:
        decay = optimizer.weight_decay
        yield CoScaled("weight_decay", decay, scaled_weight_decay(decay, batch_ratio, lr_factor=lr_factor))
