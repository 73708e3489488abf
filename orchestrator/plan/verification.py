"""Which worlds and micro-batches `orchestrate verify-topology` compares with one process, and how close is close. Pure.

Two sums of the same numbers in another order differ by rounding; a mean of means or randomness by rank differs by
four orders of magnitude more. The bounds lie between, so that neither rounding nor luck decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.plan.batch import describe_runs, rank_groups

PrecisionName = Literal["fp64", "fp32"]

MOST_MICRO_STEPS = 16
"""The smallest micro-batches of the matrix take so many micro-steps, or one sample each."""


@dataclass(frozen=True)
class Bounds:
    """The largest differences that rounding may make."""

    loss: float
    """Relative, of any step's loss."""
    parameters: float
    """||a - b|| / ||a|| of any one tensor after the last step."""


BOUNDS: dict[PrecisionName, Bounds] = {"fp64": Bounds(1e-12, 1e-12), "fp32": Bounds(5e-6, 1e-4)}


ROUNDING_FACTOR = 100
"""A parameter may differ by so many times what it differs when one process takes the same samples in another order.

That is next to nothing, and the bounds above are what counts; but where a gradient is zero but for rounding (the bias
of attention's keys), Adam divides rounding by rounding, and no two orders of a sum agree on what comes out.
"""


@dataclass(frozen=True)
class Case:
    """One way to train the batch: so many ranks, no micro-batch larger than this. Ranks are uneven where they must."""

    world_size: int
    largest_micro_batch: int

    def describe(self, batch_size: int, micro_multiple: int) -> tuple[str, int]:
        """The micro-batches of the ranks, such as '4 x (5, 4, 4) + 1 x (4, 4, 4)', and the micro-steps of each rank."""
        groups = rank_groups(
            batch_size,
            world_size=self.world_size,
            largest_micro_batch=self.largest_micro_batch,
            micro_multiple=micro_multiple,
        )
        words = " + ".join(f"{num_ranks} x ({describe_runs(runs)})" for num_ranks, runs in groups)
        return words, sum(count for _, count in groups[0][1])


def reference_case(batch_size: int, limit: int | None) -> Case:
    """One process, in one micro-batch, or in the fewest that the recipe's `batch.micro` allows."""
    return Case(1, min(limit or batch_size, batch_size))


def cases_of(batch_size: int, worlds: Sequence[int], limit: int | None) -> tuple[Case, ...]:
    """What is compared with the reference; `limit` is the largest micro-batch that the recipe allows.

    For each world: a rank's whole share, a ragged split of it, and micro-batches of one sample or few.
    """
    reference = reference_case(batch_size, limit)
    cases: list[Case] = []
    for world_size in worlds:
        share = -(-batch_size // world_size)
        most = min(limit or share, share)
        sizes = (most, _ragged(share, most), min(most, -(-share // MOST_MICRO_STEPS)))
        cases += [Case(world_size, size) for size in sizes if size]
    return tuple(case for case in dict.fromkeys(cases) if case != reference)


def _ragged(share: int, most: int) -> int | None:
    """The largest micro-batch, at most `most`, that makes a rank's micro-batches differ; None where none does."""
    counts = (-(-share // size) for size in range(most, 1, -1))
    num_micro_steps = next((count for count in counts if share % count), None)
    return None if num_micro_steps is None else -(-share // num_micro_steps)


@dataclass(frozen=True)
class Row:
    """One case in one precision beside the reference in that precision."""

    precision: PrecisionName
    world_size: int
    micro_batches: str
    gradient_accumulation_steps: int
    loss: float | None = None
    """The largest relative difference of a step's loss; None where training failed."""
    parameters: float | None = None
    """The largest ||a - b|| / ||a|| of a parameter, but for those that rounding moves."""
    worst: str = ""
    """The parameter with that difference."""
    moved: float = 0.0
    """The largest difference of a parameter that rounding moves, as a fraction of what is allowed there."""
    same_ids: bool = False
    """Whether every step has trained on the same samples, in the same order."""
    same_data: bool = False
    """Whether these samples were the same, byte for byte."""
    failed: str = ""
    """Why it could not be trained to the last step, though the reference could."""

    @property
    def holds(self) -> bool:
        """Whether only rounding is between it and the reference."""
        bounds = BOUNDS[self.precision]
        if self.failed or self.loss is None or self.parameters is None:
            return False
        near = self.loss <= bounds.loss and self.parameters <= bounds.parameters and self.moved <= 1
        return near and self.same_ids and self.same_data


ReasonKind = Literal[
    "ids",
    "samples",
    "rank",
    "world_size",
    "generator",
    "batch_norm",
    "micro_batch",
    "loss",
    "gradient",
    "draws",
    "failed",
    "rounding",
    "unknown",
]


@dataclass(frozen=True)
class Reason:
    """Why it does not hold, as an experiment has shown: `where` in the model or data, `what`, and the `fix`."""

    kind: ReasonKind
    where: str
    what: str
    fix: str


@dataclass(frozen=True)
class MovedByRounding:
    """A parameter whose difference is not held to the bounds."""

    precision: PrecisionName
    name: str
    difference: float
    """||a - b|| / ||a|| between two orders of the same samples in one process."""


@dataclass(frozen=True)
class VerifyReport:
    """What `orchestrate verify-topology` found out."""

    name: str
    effective_batch_size: int
    steps: int
    reference: str
    """The micro-batches of the one process that all are compared with."""
    rows: tuple[Row, ...]
    moved: tuple[MovedByRounding, ...]
    reasons: tuple[Reason, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        return all(row.holds for row in self.rows)
