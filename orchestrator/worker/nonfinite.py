"""What to do about a window whose loss or gradient norm is NaN or infinite: one pure decision, the same on every rank.

It is made from numbers that all ranks share (the reduced loss, the norm after DDP's all-reduce), so it needs no vote.
A window is named by the samples consumed before it: the order makes that its identity on any world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from orchestrator.recipe.schema import NonFinite

Action = Literal["update", "stop", "skip", "roll_back"]


@dataclass(frozen=True)
class Decision:
    """What comes of one window. The checkpoint's state keeps `passed_over`, so that a resume goes on counting."""

    action: Action
    passed_over: tuple[int, ...]
    """First samples of all windows passed over so far, this one included where it is."""
    why: str = ""
    """`the training loss is nan`, and of a stop also that the budget is used up."""


def decide(
    policy: NonFinite | None,
    *,
    window_start: int,
    loss: float,
    grad_norm: float | None,
    passed_over: tuple[int, ...],
    has_checkpoint: bool = True,
) -> Decision:
    """The decision on the window that begins after `window_start` consumed samples, before its update is made.

    `grad_norm` is None where a GradScaler judges gradients itself (fp16): the steps it skips are no matter of ours.
    Without a checkpoint there is nothing to roll back to: then the weights are as they were, and the window is skipped.
    """
    why = non_finite(loss, grad_norm)
    if not why:
        return Decision("update", passed_over)
    if policy is None or policy.action == "stop":
        return Decision("stop", passed_over, why)
    if len(passed_over) >= policy.budget:
        used_up = f"{why}, and {policy.budget} windows have been passed over already (on_non_finite_loss.budget)"
        return Decision("stop", passed_over, used_up)
    action: Action = "roll_back" if policy.action == "roll_back" and has_checkpoint else "skip"
    return Decision(action, (*passed_over, window_start), why)


def is_passed_over(window_start: int, passed_over: tuple[int, ...]) -> bool:
    """Whether a window that comes again after a roll-back has no forward pass: its samples only count as consumed."""
    return window_start in passed_over


def non_finite(loss: float, grad_norm: float | None) -> str:
    """What is not a finite number, in words; '' where all is well."""
    if not math.isfinite(loss):
        return f"the training loss is {loss}"
    if grad_norm is not None and not math.isfinite(grad_norm):
        return f"the gradient norm is {grad_norm}"
    return ""
