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

    def micro_batch(self, num_samples: int, step: int) -> MicroBatchWatch:
        """A context for one micro-step of `step`. An empty micro-batch runs one sample. Raises OutOfMemory."""
        return MicroBatchWatch(self, num_samples or 1, step)

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
                raise self.told("evaluation", what, micro_batch_size=max(1, num_samples)) from error
            raise self.told("evaluation", what, "write a smaller evaluation.batch, or none") from error

    def told(self, where: str, what: str, fix: str = "", **facts: Any) -> OutOfMemory:
        """The error for memory that ran out, with the device's numbers where it has any."""
        if self.device.type == "cuda":
            with contextlib.suppress(RuntimeError):
                facts["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
                facts["capacity_bytes"] = torch.cuda.get_device_properties(self.device).total_memory
                what += f"; peak {facts['peak_bytes'] / GIB:.3g} of {facts['capacity_bytes'] / GIB:.3g} GiB"
        return OutOfMemory(Problem(where, what, fix), facts)


class MicroBatchWatch:
    """What stands around one micro-step; a class, since a generator costs a short step three times as much."""

    __slots__ = ("_size", "_step", "_watch")

    def __init__(self, watch: MemoryWatch, size: int, step: int) -> None:
        self._watch, self._size, self._step = watch, size, step

    def __enter__(self) -> None:
        limits = self._watch.limits
        if limits and any(limit.forbids(self._size, rank=self._watch.rank, step=self._step) for limit in limits):
            pretended = torch.OutOfMemoryError(f"the recipe pretends that {_samples(self._size)} do not fit")
            raise self._told() from pretended

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if error is not None and (told := self.explained(error)) is not error:
            raise told from error

    def explained(self, error: BaseException) -> BaseException:
        """`error`, or OutOfMemory in its place where it says that memory ran out."""
        return self._told() if isinstance(error, Exception) and ran_out_of_memory(error) else error

    def _told(self) -> OutOfMemory:
        what = f"out of memory at a micro-batch of {_samples(self._size)}"
        return self._watch.told(f"step {self._step}", what, micro_batch_size=self._size, step=self._step)


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count} samples"
