"""Datasets as one: sample ids 0 to N - 1 over all of them, fetched in the run's own order."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import default_collate

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe.data import Dataset
from orchestrator.worker.data.fetch_cost import FetchCost, FetchMeter
from orchestrator.worker.data.parts import (
    BadSample,
    BatchPart,
    MapPart,
    Part,
    SampleError,
    StreamPart,
    fetches_batches,
    is_stream,
)
from orchestrator.worker.randomness import SampleSeeds, UseOfRandomness, no_sample
from orchestrator.worker.targets import UserCode

Collate = Callable[[list[Any]], Any]

_STAND_INS = 32
"""So many samples are tried where one is needed that counts for nothing."""


class Draw(NamedTuple):
    """What to fetch for one micro-batch; an empty one fetches a single sample that counts for nothing."""

    ids: tuple[int, ...]
    """Sample ids, as the global order gives them."""
    passes: tuple[int, ...]
    """Of each, which pass over its dataset it belongs to: with the id it seeds the randomness of the item."""
    num_samples: int
    """How many of them count: all, or 0."""
    bad: tuple[BadSample, ...] = ()
    """What was to be fetched, too, and raised."""


class MicroBatch(NamedTuple):
    """One micro-batch as it arrived, collated, on the host."""

    ids: Sequence[int]
    num_samples: int
    inputs: Any
    targets: Any
    bad: tuple[BadSample, ...] = ()
    """Samples that were skipped."""
    cost: FetchCost | None = None
    """What fetching it took, where that was measured."""


class Datasets:
    """Several datasets, one after the other. Picklable only as far as they are.

    The generators of torch, and of numpy and Python where the user's modules import them, are seeded before each item
    from the run's seed, the pass and the sample's id, and left afterwards as they were: an augmentation gives the same
    sample on every world, for any number of loader processes, and after a resume. See `randomness` for any others.
    """

    def __init__(self, parts: Sequence[Part], *, seeds: SampleSeeds, skips_bad: bool = False) -> None:
        self.parts = tuple(parts)
        self._ends = tuple(accumulate(part.size for part in parts))
        self._seeds = seeds
        self._skips_bad = skips_bad

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitems__(self, draw: Draw) -> tuple[Draw, list[Any]]:
        """The items of one micro-batch. Raises SampleError naming dataset and index when one cannot be had.

        Where bad samples are skipped, the draw that is returned tells what is left of the one that was given.
        """
        try:
            found = self._found(draw)
            if BadSample not in map(type, found):
                return draw, found
            bad = tuple(item for item in found if isinstance(item, BadSample))
            if not self._skips_bad:
                raise SampleError(str(bad[0]))
            good = [place for place, item in enumerate(found) if not isinstance(item, BadSample)]
            counted = bad if draw.num_samples else ()
            if not good:
                return draw._replace(num_samples=0, bad=counted), [self._stand_in(draw, bad[0])]
            ids, passes = (tuple(each[place] for place in good) for each in (draw.ids, draw.passes))
            return Draw(ids, passes, len(good), counted), [found[place] for place in good]
        finally:
            no_sample()

    def _found(self, draw: Draw) -> list[Any]:
        """The items in the order of the draw, fetched from one dataset after the other, pass by pass."""
        if len(self.parts) == 1 and draw.passes[0] == draw.passes[-1]:
            first = self._seeds.of(draw.passes[0], 0)
            return self.parts[0].fetch(draw.ids, draw.passes[0], [(first + i) % 2**63 for i in draw.ids])
        groups: dict[tuple[int, int], list[int]] = {}
        for place, which in enumerate(zip(draw.ids, draw.passes, strict=True)):
            groups.setdefault((bisect_right(self._ends, which[0]), which[1]), []).append(place)
        found: list[Any] = [None] * len(draw.ids)
        for (number, pass_number), places in groups.items():
            first_id = self._ends[number - 1] if number else 0
            indices = [draw.ids[place] - first_id for place in places]
            seeds = [self._seeds.of(pass_number, draw.ids[place]) for place in places]
            items = self.parts[number].fetch(indices, pass_number, seeds)
            for place, item in zip(places, items, strict=True):
                found[place] = item
        return found

    def _stand_in(self, draw: Draw, bad: BadSample) -> Any:
        """Another sample of the dataset: a micro-batch without any cannot take part in the exchange of gradients."""
        for step in range(1, _STAND_INS + 1):
            sample_id = (draw.ids[0] + step) % len(self)
            item = self._found(Draw((sample_id,), (draw.passes[0],), 0))[0]
            if not isinstance(item, BadSample):
                return item
        raise SampleError(f"{bad}; and so do the {_STAND_INS} after it")

    def lengths_of(self, ids: Sequence[int]) -> list[int]:
        """The length of each sample, by its dataset's own `lengths`."""
        return [self._lengths[i] for i in ids]

    @cached_property
    def _lengths(self) -> list[int]:
        return [int(length) for part in self.parts for length in cast(Any, part.dataset).lengths]

    @property
    def collate(self) -> Collate:
        """Items to (inputs, targets): the `collate_fn` of the first dataset that has one, else torch's default."""
        found = (getattr(part.dataset, "collate_fn", None) for part in self.parts)
        return next((function for function in found if function is not None), default_collate)


def stacked(items: list[Any]) -> Any:
    """What `default_collate` gives, in half its time where all items are pairs of tensors."""
    if all(type(item) is tuple and len(item) == 2 for item in items):
        with contextlib.suppress(TypeError):
            return [torch.stack(each) for each in zip(*items, strict=True)]
    return default_collate(items)


class Metered:
    """Datasets that start a stop-watch before they fetch; who collates stops it."""

    def __init__(self, datasets: Datasets, meter: FetchMeter) -> None:
        self._datasets, self._meter = datasets, meter

    def __len__(self) -> int:
        return len(self._datasets)

    def __getitems__(self, draw: Draw) -> tuple[Draw, list[Any]]:
        self._meter.begin()
        return self._datasets.__getitems__(draw)


class CollateDraw:
    """Turns what `Datasets` fetched into a MicroBatch."""

    def __init__(self, collate: Collate, meter: FetchMeter | None = None) -> None:
        self._collate, self._meter = collate, meter

    def __call__(self, fetched: tuple[Draw, list[Any]]) -> MicroBatch:
        draw, items = fetched
        collated = self._collate(items)
        if not isinstance(collated, tuple | list) or len(collated) != 2:
            raise SampleError(f"items must be (inputs, targets), and collating them gave {type(collated).__name__}")
        cost = None if self._meter is None else self._meter.end()
        return MicroBatch(draw.ids[: draw.num_samples], draw.num_samples, collated[0], collated[1], draw.bad, cost)


def open_datasets(
    code: UserCode,
    declared: Sequence[Dataset],
    *,
    seed: int,
    where: str,
    skips_bad: bool = False,
    grouped: bool = False,
) -> Datasets:
    """The datasets that a recipe declares under `where`, opened, their sizes checked; `grouped`: their lengths too.

    Raises RecipeError when one cannot be opened, is of another kind, or has another size than `num_samples`.
    """
    opened = [code.build(dataset) for dataset in declared]
    problems = [_problem(f"{where}.{i}", declared[i], dataset) for i, dataset in enumerate(opened)]
    if found := [problem for problem in problems if problem is not None]:
        raise RecipeError(found)
    seeds, modules = SampleSeeds(seed), code.modules()
    parts: list[Part] = []
    for wanted, dataset in zip(declared, opened, strict=True):
        use, size = UseOfRandomness.of(dataset, modules), wanted.num_samples
        if wanted.iterable:
            parts.append(StreamPart(wanted.name, dataset, size, use, seeds, sum(part.size for part in parts)))
        else:
            kind = BatchPart if fetches_batches(dataset) else MapPart
            parts.append(kind(wanted.name, dataset, size, use))
    if grouped and (found := list(_without_lengths(where, parts))):
        raise RecipeError(found)
    return Datasets(parts, seeds=seeds, skips_bad=skips_bad)


def _without_lengths(where: str, parts: Sequence[Part]) -> Iterator[Problem]:
    """Datasets that do not say how long each of their samples is."""
    for index, part in enumerate(parts):
        lengths = getattr(part.dataset, "lengths", None)
        if lengths is None or len(lengths) != part.size:
            said = "has no `lengths`" if lengths is None else f"has {len(lengths)} `lengths` for {part.size} samples"
            what = f"dataset {part.name!r} {said}, and loader.group_by_length is set"
            yield Problem(f"{where}.{index}", what, "give it one number a sample there, or take group_by_length away")


def _problem(where: str, declared: Dataset, dataset: Any) -> Problem | None:
    gave = f"{declared.target} gave {type(dataset).__name__}"
    if declared.iterable and not hasattr(dataset, "__iter__"):
        return Problem(f"{where}.iterable", f"{gave}, which has no __iter__", "return a stream, or take iterable away")
    if not declared.iterable and hasattr(dataset, "__iter__") and is_stream(dataset):
        what = f"{gave}, which has __iter__ and no __getitem__"
        return Problem(f"{where}.iterable", what, "write iterable: true, or return a map-style dataset")
    try:
        size = len(dataset)
    except TypeError:
        if declared.iterable:
            return None
        return Problem(where, f"{gave}, which has no length", "return a map-style dataset: __len__ and __getitem__")
    if size == declared.num_samples:
        return None
    if size == 0:
        fix = "give it samples: see whether its args name the right files"
        return Problem(where, f"dataset {declared.name!r} is empty", fix)
    what = f"dataset {declared.name!r} has {size} samples, and the recipe declares {declared.num_samples}"
    return Problem(f"{where}.num_samples", what, f"write num_samples: {size}")
