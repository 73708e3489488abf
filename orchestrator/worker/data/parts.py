"""One dataset at work: its items by index, by whole micro-batches, or read forward from a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch.utils.data import IterableDataset, Subset

from orchestrator.worker.failure import one_line
from orchestrator.worker.randomness import (
    GlobalGenerators,
    SampleSeeds,
    UseOfRandomness,
    announce_sample,
    global_generators_kept,
    seed_sample,
    seed_samples,
)


class SampleError(Exception):
    """An item could not be had. A plain exception: it has to travel out of a loader process as text."""


@dataclass(frozen=True)
class BadSample:
    """A sample that raised."""

    dataset: str
    index: int
    """In its dataset."""
    why: str

    def __str__(self) -> str:
        return f"sample {self.index} of dataset {self.dataset!r}: {self.why}"


class Part(Protocol):
    """One dataset: `fetch` gives items in the order of `indices`, a BadSample in the place of one that raised.

    It leaves the global generators as they were.
    """

    name: str
    size: int
    dataset: Any
    use: UseOfRandomness

    def fetch(self, indices: Sequence[int], pass_number: int, seeds: Sequence[int]) -> list[Any]: ...


class MapPart:
    """A map-style dataset: one item at a time, each after the generators were seeded for it.

    Seeding costs more than many an item. So it begins with the first micro-batch whose items were seen to draw from a
    global generator: that one is fetched again, seeded; those before it drew nothing, and hang on no seed.
    """

    def __init__(self, name: str, dataset: Any, size: int, use: UseOfRandomness) -> None:
        self.name, self.dataset, self.size, self.use = name, dataset, size, use
        self._draws = False

    def fetch(self, indices: Sequence[int], pass_number: int, seeds: Sequence[int]) -> list[Any]:
        generators = GlobalGenerators(self.use)
        if not self._draws:
            items = self._items(indices, seeds, announce_sample)
            if not generators.have_moved():
                return items
            self._draws = True
        items = self._items(indices, seeds, self._seed)
        generators.put_back()
        return items

    def _seed(self, seed: int) -> None:
        seed_sample(seed, self.use)

    def _items(self, indices: Sequence[int], seeds: Sequence[int], begin: Callable[[int], None]) -> list[Any]:
        dataset, items, index = self.dataset, list[Any](), -1
        left = zip(indices, seeds, strict=True)
        while len(items) < len(indices):
            try:
                for index, seed in left:
                    begin(seed)
                    items.append(dataset[index])
            except Exception as error:
                items.append(BadSample(self.name, index, one_line(error)))
        return items


class BatchPart(MapPart):
    """A dataset with `__getitems__(indices)`: whole micro-batches; its random numbers come from sample generators."""

    def fetch(self, indices: Sequence[int], pass_number: int, seeds: Sequence[int]) -> list[Any]:
        generators = GlobalGenerators(self.use)
        seed_samples(dict(zip(indices, seeds, strict=True)))
        try:
            items = list(self.dataset.__getitems__(list(indices)))
        except Exception:
            items = [self._alone(*which) for which in zip(indices, seeds, strict=True)]
        if len(items) != len(indices):
            what = f"gave {len(items)} items for {len(indices)} indices"
            raise SampleError(f"__getitems__ of dataset {self.name!r} {what}")
        if generators.have_moved():
            what = "drew from a global generator, so its items would hang on the micro-batch"
            raise SampleError(f"__getitems__ of dataset {self.name!r} {what}; use sample_generator(index=...)")
        return items

    def _alone(self, index: int, seed: int) -> Any:
        """One alone, to learn which of several cannot be had."""
        seed_samples({index: seed})
        try:
            return self.dataset.__getitems__([index])[0]
        except Exception as error:
            return BadSample(self.name, index, one_line(error))


class StreamPart:
    """An iterable dataset, read forward: what lies between two items that are wanted is read and passed over.

    Each process reads for itself, from the beginning of a pass on; generators are seeded for every item that is read,
    wanted or not, so that a stream which draws random numbers for its items gives the same ones in every process.
    """

    def __init__(self, name: str, dataset: Any, size: int, use: UseOfRandomness, seeds: SampleSeeds, first_id: int):
        self.name, self.dataset, self.size, self.use = name, dataset, size, use
        self._seeds, self._first_id = seeds, first_id
        self._items: Iterator[Any] = iter(())
        self._at = (-1, 0)
        """The pass that is open, and the index of its next item."""
        self._last: Any = None
        """The item before that: what stands in for an empty share is mostly the one just read."""

    def fetch(self, indices: Sequence[int], pass_number: int, seeds: Sequence[int]) -> list[Any]:
        with global_generators_kept(self.use):
            return [self._read_to(index, pass_number) for index in indices]

    def close(self) -> None:
        """Forget what is open; the next item is read from the beginning of its pass."""
        self._items, self._at, self._last = iter(()), (-1, 0), None

    def _read_to(self, index: int, pass_number: int) -> Any:
        open_pass, following = self._at
        if open_pass != pass_number or following > index + 1:
            following = 0
        for number in range(following, index + 1):
            self._last = self._next(number, pass_number)
        return self._last

    def _next(self, index: int, pass_number: int) -> Any:
        seed_sample(self._seeds.of(pass_number, self._first_id + index), self.use)
        try:
            if index == 0:
                if hasattr(self.dataset, "set_epoch"):
                    self.dataset.set_epoch(pass_number)
                self._items = iter(self.dataset)
            item = next(self._items)
        except StopIteration:
            what = f"ended after {index} of its {self.size} samples, in pass {pass_number}"
            raise SampleError(f"dataset {self.name!r} {what}") from None
        except Exception as error:
            raise SampleError(str(BadSample(self.name, index, one_line(error)))) from error
        self._at = pass_number, index + 1
        return item


def is_stream(dataset: Any) -> bool:
    """Whether a dataset has no items by index; torch gives its IterableDataset a `__getitem__` that only raises."""
    return isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")


def fetches_batches(dataset: Any) -> bool:
    """Whether a dataset knows how to fetch whole micro-batches. torch's Subset only hands them on, one by one."""
    return hasattr(dataset, "__getitems__") and not isinstance(dataset, Subset)
