"""What a rank was working on when its memory ran out: the driver plans smaller micro-batches by it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.errors import Problem, TrainingError
from orchestrator.recipe.memory_limit import PretendedLimit, pretended_limits
from orchestrator.recipe.schema import Recipe
from orchestrator.units import GIB
from orchestrator.worker.failure import ran_out_of_memory


class OutOfMemory(TrainingError):
    """Memory ran out in a micro-batch; `facts` go into error-<rank>.json beside the message. Sizes in bytes."""

    def __init__(self, problem: Problem, facts: dict[str, Any]) -> None:
        super().__init__(problem)
        self.facts = facts


@dataclass(frozen=True)
class MemoryWatch:
    """Stands around each forward and backward of a rank. Costs a step nothing but a few calls."""

    device: torch.device
    rank: int
    limits: tuple[PretendedLimit, ...] = ()
    evaluation_batch: int | None = None
    """The recipe's own batch for evaluation: no plan can make it smaller."""

    @classmethod
    def of(cls, recipe: Recipe, *, rank: int, device: torch.device) -> MemoryWatch:
        """The watch of one rank, with the limits that the recipe pretends."""
        return cls(device, rank, pretended_limits(recipe), recipe.evaluation.batch)

    @contextlib.contextmanager
    def micro_batch(self, num_samples: int, step: int) -> Iterator[None]:
        """Around one micro-step of `step`. An empty micro-batch runs one sample. Raises OutOfMemory."""
        size = num_samples or 1
        try:
            if self.limits and any(limit.forbids(size, rank=self.rank, step=step) for limit in self.limits):
                raise torch.OutOfMemoryError(f"the recipe pretends that {_samples(size)} do not fit")
            yield
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            what = f"out of memory at a micro-batch of {_samples(size)}"
            raise self._told(f"step {step}", what, micro_batch_size=size, step=step) from error

    @contextlib.contextmanager
    def evaluation(self, num_samples: int) -> Iterator[None]:
        """Around one forward pass of an evaluation, whose batches are as large as micro-batches. Raises OutOfMemory."""
        try:
            yield
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            what = f"out of memory at {_samples(num_samples)}"
            if self.evaluation_batch is None:
                raise self._told("evaluation", what, micro_batch_size=max(1, num_samples)) from error
            raise self._told("evaluation", what, "write a smaller evaluation.batch, or none") from error

    def _told(self, where: str, what: str, fix: str = "", **facts: Any) -> OutOfMemory:
        if self.device.type == "cuda":
            with contextlib.suppress(RuntimeError):
                facts["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
                facts["capacity_bytes"] = torch.cuda.get_device_properties(self.device).total_memory
                what += f"; peak {facts['peak_bytes'] / GIB:.3g} of {facts['capacity_bytes'] / GIB:.3g} GiB"
        return OutOfMemory(Problem(where, what, fix), facts)


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count} samples"
