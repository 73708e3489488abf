"""A limit on memory that is only pretended, so that running out of it can be tried on any machine. For tests.

`env.variables: {ORCHESTRATE_MICRO_BATCH_LIMIT: "8"}`: a larger micro-batch runs out of memory in its forward pass.
Several, with commas between them, hold together; each may be one rank's alone (`1:4`) or begin at a step (`4@100`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.errors import Problem
from orchestrator.recipe.schema import Recipe

VARIABLE = "ORCHESTRATE_MICRO_BATCH_LIMIT"
_LIMIT = re.compile(r"(?:(\d+):)?(\d+)(?:@(\d+))?")


@dataclass(frozen=True)
class PretendedLimit:
    """No micro-batch above `micro_batch_size` samples."""

    micro_batch_size: int
    rank: int | None
    """None for every rank."""
    from_step: int

    def forbids(self, micro_batch_size: int, *, rank: int, step: int) -> bool:
        """Whether a micro-batch of `rank` is too large in this step."""
        meant = self.rank in (None, rank) and step >= self.from_step
        return meant and micro_batch_size > self.micro_batch_size


def pretended_limits(recipe: Recipe) -> tuple[PretendedLimit, ...]:
    """The limits that the recipe's variable names; none where it is not set. Raises ValueError for other text."""
    text = recipe.env.variables.get(VARIABLE)
    return () if text is None else tuple(map(_limit, text.split(",")))


def _limit(text: str) -> PretendedLimit:
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no limit")
    rank, size, step = match.groups()
    return PretendedLimit(int(size), None if rank is None else int(rank), int(step or 0))


def memory_limit_is_readable(recipe: Recipe) -> Iterator[Problem]:
    """Whether the variable can be understood; a dotted key."""
    try:
        pretended_limits(recipe)
    except ValueError as error:
        yield Problem(f"env.variables.{VARIABLE}", str(error), 'write samples, such as "8", "1:8" (rank 1) or "8@100"')
