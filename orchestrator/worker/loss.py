"""Losses are (sum, count); a window's loss is the sum over all ranks and micro-batches, divided by the global count.

DDP averages gradients over ranks, so each backward runs on sum * world_size / count: what arrives is the gradient of
one big batch, for any sharing of the window. Source: the loss algebra of torchtitan and fairseq2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import Problem, TrainingError
from orchestrator.recipe.schema import Recipe
from orchestrator.worker.data import MicroBatch
from orchestrator.worker.targets import UserCode
from orchestrator.worker.world import Peers

SumAndCount = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Objective:
    """The loss and the metrics of a recipe, each `f(outputs, targets) -> (sum, count)`."""

    loss: SumAndCount
    count: Callable[[Any], Any] | None
    """`f(targets) -> int`, known before the forward pass; None where a sample counts 1."""
    metrics: dict[str, SumAndCount]
    skips_bad: bool = False
    """Whether samples may be missing in the end."""

    @property
    def counts_fetched(self) -> bool:
        """Whether a window has to be fetched whole before it is known what counts in it."""
        return self.count is not None or self.skips_bad

    @classmethod
    def of(cls, recipe: Recipe, code: UserCode) -> Objective:
        """The recipe's functions, imported."""
        assert recipe.loss is not None, "a recipe with a model has a loss"
        count = None if recipe.loss.count is None else code.load(recipe.loss.count)
        metrics = {name: code.bind(metric) for name, metric in recipe.metrics.items()}
        return cls(code.bind(recipe.loss), count, metrics, skips_bad=recipe.loader.bad_samples > 0)

    def counts_of(self, batch: MicroBatch) -> int:
        """What counts in one micro-batch, before its forward pass; 0 for an empty one."""
        if batch.num_samples == 0 or self.count is None:
            return batch.num_samples
        return int(self.count(batch.targets))

    def window_count(self, batches: Sequence[MicroBatch], window_size: int, peers: Peers) -> int:
        """What counts in the whole window, on all ranks. Where that is known before, nothing is sent."""
        if not self.counts_fetched:
            return window_size
        return peers.sum_counts([sum(map(self.counts_of, batches))])[0]

    def check_count(self, told: Any, batch: MicroBatch, step: int) -> None:
        """Refuse a loss that counts something else than what the window is divided by. Raises TrainingError."""
        expected = self.counts_of(batch)
        if batch.num_samples == 0 or int(told) == expected:
            return
        if self.count is None:
            what = f"the loss counts {int(told)} in a micro-batch of {expected} samples"
            fix = "give loss.count: module:function, f(targets) -> int, that counts the same before the forward pass"
        else:
            what = f"the loss counts {int(told)} in a micro-batch where loss.count gives {expected}"
            fix = "make the two count the same"
        raise TrainingError(Problem(f"step {step}", what, fix))


def backward_weight(*, num_samples: int, world_size: int, window_count: int) -> float:
    """What a micro-batch's loss sum is weighted by in its backward pass: world_size / count, or 0 for an empty one."""
    return world_size / window_count if num_samples else 0.0
