"""Datasets as one: sample ids 0 to N - 1 over all of them, fetched in the run's own order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch.utils.data import default_collate

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe.data import Dataset
from orchestrator.worker.failure import one_line
from orchestrator.worker.seeds import derived_seed
from orchestrator.worker.targets import UserCode

Collate = Callable[[list[Any]], Any]


class Draw(NamedTuple):
    """What to fetch for one micro-batch; an empty one fetches a single sample that counts for nothing."""

    ids: tuple[int, ...]
    """Sample ids, as the global order gives them."""
    positions: tuple[int, ...]
    """Where in the global order they stand: these seed the randomness of a dataset's items."""
    num_samples: int
    """How many of them count: all, or 0."""


class MicroBatch(NamedTuple):
    """One micro-batch as it arrived, collated, on the host."""

    ids: Sequence[int]
    num_samples: int
    inputs: Any
    targets: Any


class Datasets:
    """Several map-style datasets, one after the other. Picklable only as far as they are.

    Torch's generator is seeded before each item from the run's seed and the sample's position in the global order, and
    left afterwards as it was: an augmentation that uses torch's random numbers gives the same sample on every world,
    for any number of loader processes, and after a resume.
    """

    def __init__(self, names: Sequence[str], parts: Sequence[Any], *, seed: int) -> None:
        self._names = tuple(names)
        self._parts = tuple(parts)
        self._ends = tuple(accumulate(len(part) for part in parts))
        self._first_seed = derived_seed(seed) % 2**63

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitems__(self, draw: Draw) -> tuple[Draw, list[Any]]:
        """The items of one micro-batch. Raises SampleError naming dataset and index when one cannot be had."""
        state = torch.default_generator.get_state()
        try:
            return draw, [self._item(*which) for which in zip(draw.ids, draw.positions, strict=True)]
        finally:
            torch.default_generator.set_state(state)

    def _item(self, sample_id: int, position: int) -> Any:
        torch.default_generator.manual_seed(self._first_seed + position)
        part = bisect_right(self._ends, sample_id)
        index = sample_id - (self._ends[part - 1] if part else 0)
        try:
            return self._parts[part][index]
        except Exception as error:
            raise SampleError(f"sample {index} of dataset {self._names[part]!r}: {one_line(error)}") from error

    @property
    def collate(self) -> Collate:
        """Items to (inputs, targets): the `collate_fn` of the first dataset that has one, else torch's default."""
        found = (getattr(part, "collate_fn", None) for part in self._parts)
        return next((function for function in found if function is not None), default_collate)


class SampleError(Exception):
    """An item could not be had. A plain exception: it has to travel out of a loader process as text."""


class CollateDraw:
    """Turns what `Datasets` fetched into a MicroBatch."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, fetched: tuple[Draw, list[Any]]) -> MicroBatch:
        draw, items = fetched
        collated = self._collate(items)
        if not isinstance(collated, tuple | list) or len(collated) != 2:
            raise SampleError(f"items must be (inputs, targets), and collating them gave {type(collated).__name__}")
        return MicroBatch(draw.ids[: draw.num_samples], draw.num_samples, collated[0], collated[1])


def open_datasets(code: UserCode, declared: Sequence[Dataset], *, seed: int, where: str) -> Datasets:
    """The datasets that a recipe declares under `where`, opened, their sizes checked.

    Raises RecipeError when one cannot be opened or has another size than `num_samples`.
    """
    parts = [code.build(dataset) for dataset in declared]
    problems = [_size_problem(f"{where}.{i}", declared[i], part) for i, part in enumerate(parts)]
    if found := [problem for problem in problems if problem is not None]:
        raise RecipeError(found)
    return Datasets([dataset.name for dataset in declared], parts, seed=seed)


def _size_problem(where: str, declared: Dataset, part: Any) -> Problem | None:
    try:
        size = len(part)
    except TypeError:
        what = f"{declared.target} gave {type(part).__name__}, which has no length"
        return Problem(where, what, "return a map-style dataset: __len__ and __getitem__")
    if size == declared.num_samples:
        return None
    what = f"dataset {declared.name!r} has {size} samples, and the recipe declares {declared.num_samples}"
    return Problem(f"{where}.num_samples", what, f"write num_samples: {size}")
