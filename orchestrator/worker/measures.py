"""What is measured on validation sets: sums over samples, added over batches and ranks, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.errors import Problem, TrainingError
from orchestrator.recipe.data import Metric
from orchestrator.worker.targets import UserCode

SumAndCount = Callable[..., tuple[Any, Any]]
"""`f(outputs, targets)`, or `f(model, inputs, targets)`, `-> (sum, count)`; the sum may be a vector."""


@dataclass(frozen=True)
class Measure:
    """One loss or metric."""

    name: str
    function: SumAndCount
    of_model: bool = False
    """Whether it is given the model and the inputs instead of the model's outputs: it may generate."""
    finish: Callable[[list[float], float], Any] | None = None
    """Makes of the sums and the count what is told; None: sum / count."""
    gives: tuple[str, ...] = ()
    """The names of what `finish` makes; none where that is one number, which has the metric's own name."""

    @classmethod
    def of(cls, name: str, wanted: Metric, code: UserCode) -> Measure:
        """The recipe's functions, imported."""
        finish = None if wanted.finish is None else code.load(wanted.finish)
        return cls(name, code.bind(wanted), wanted.given == "model", finish, wanted.gives)

    def summed(self, value: Any, device: torch.device) -> torch.Tensor:
        """What a call gave as its sum: fp64, shape (numbers,). Raises TrainingError for a vector without `finish`."""
        sums = torch.as_tensor(value, dtype=torch.float64, device=device).reshape(-1)
        if self.finish is None and sums.numel() != 1:
            what = f"gives {sums.numel()} numbers as its sum"
            raise TrainingError(Problem(f"metrics.{self.name}", what, "give one, or write `finish`"))
        return sums

    def told(self, sums: list[float], count: float) -> Iterator[tuple[str, float]]:
        """(name, value) of all that it comes to. Raises TrainingError where `finish` makes something else."""
        if self.finish is None:
            yield self.name, sums[0] / count
            return
        made = self.finish(sums, count)
        values = made if isinstance(made, Mapping) else {self.name: made}
        names = self.gives or (self.name,)
        if set(values) != set(names):
            what = f"finish makes {', '.join(map(str, values))}, and the recipe names {', '.join(names)}"
            raise TrainingError(Problem(f"metrics.{self.name}.gives", what, "name what it makes"))
        yield from ((name, float(values[name])) for name in names)
