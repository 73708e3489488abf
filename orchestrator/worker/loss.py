"""Losses are (sum, count); a window's loss is the sum over all ranks and micro-batches, divided by the global count.

DDP averages gradients over ranks, so each backward runs on sum * world_size / count: what arrives is the gradient of
one big batch, for any sharing of the window. Source: the loss algebra of torchtitan and fairseq2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import Problem, TrainingError
from orchestrator.recipe.schema import Recipe
from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.measures import Measure, SumAndCount
from orchestrator.worker.targets import UserCode


@dataclass(frozen=True)
class Objective:
    """The loss of a recipe, `f(outputs, targets) -> (sum, count)`, and its metrics."""

    loss: SumAndCount
    count: Callable[[Any], Any] | None
    """`f(targets) -> int`, known before the forward pass; None where a sample counts 1."""
    metrics: tuple[Measure, ...]

    @classmethod
    def of(cls, recipe: Recipe, code: UserCode) -> Objective:
        """The recipe's functions, imported."""
        assert recipe.loss is not None, "a recipe with a model has a loss"
        count = None if recipe.loss.count is None else code.load(recipe.loss.count)
        metrics = tuple(Measure.of(name, metric, code) for name, metric in recipe.metrics.items())
        return cls(code.bind(recipe.loss), count, metrics)

    def check(self, loss_sum: Any, told: Any, *, expected: int, batch: MicroBatch, step: int) -> None:
        """Refuse a loss that is no sum, or counts something else than what the window is divided by.

        Raises TrainingError.
        """
        refuse_no_sum(loss_sum, step)
        if batch.num_samples == 0 or int(told) == expected:
            return
        if self.count is None:
            what = f"the loss counts {int(told)} in a micro-batch of {expected} samples"
            fix = "give loss.count: module:function, f(targets) -> int, that counts the same before the forward pass"
        else:
            what = f"the loss counts {int(told)} in a micro-batch where loss.count gives {expected}"
            fix = "make the two count the same"
        raise TrainingError(Problem(f"step {step}", what, fix))


def refuse_no_sum(loss_sum: Any, step: int) -> None:
    """Raises TrainingError for a loss that is not one number."""
    if loss_sum.dim():
        what = f"the loss has shape {tuple(loss_sum.shape)}, and a sum has shape ()"
        raise TrainingError(Problem(f"step {step}", what, "take the sum over the micro-batch"))


def backward_weight(*, num_samples: int, world_size: int, window_count: int) -> float:
    """What a micro-batch's loss sum is weighted by in its backward pass: world_size / count, or 0 for an empty one."""
    return world_size / window_count if num_samples else 0.0
