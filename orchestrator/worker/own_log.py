"""What a loop of the user's own logs; see `session`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.tracking.journal import Journal
from orchestrator.worker.progress import Progress


@dataclass
class OwnLog:
    """Rank 0's numbers by step, until they are journaled: a step late, so that nothing waits for a GPU."""

    journal: Journal
    _waiting: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list, init=False)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Keep the numbers, and tensors of one number, that were logged for a step."""
        self._waiting.append((step, dict(values)))

    def write(self, progress: Progress, *, before: int) -> None:
        """Journal what was logged for steps before that one; names that begin with `val/` are results of the run."""
        due = [logged for logged in self._waiting if logged[0] < before]
        self._waiting = [logged for logged in self._waiting if logged[0] >= before]
        for step, values in due:
            numbers = {name: float(value) for name, value in values.items()}
            self.journal.metrics(step, numbers)
            progress.metrics |= {name: value for name, value in numbers.items() if name.startswith("val/")}
