"""Randomness by sample: what is drawn for a sample hangs on (run seed, pass, sample id), never on rank or process.

Before each item torch's own generator is seeded so, and Python's `random` and numpy's where the recipe's modules use
them; whatever else draws takes a generator from here:

    from orchestrator.worker.randomness import sample_generator

    class Pairs:
        def __getitem__(self, index):
            crop = sample_generator("numpy").integers(32)           # a numpy.random.Generator
            noise = torch.randn(8, generator=sample_generator())    # a torch.Generator

        def __getitems__(self, indices):                            # a whole micro-batch: one generator per index
            return [self.item(i, sample_generator("python", i)) for i in indices]
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any, Literal

import numpy as np
import torch

from orchestrator.worker.seeds import derived_seed

_seeds: dict[int | None, int] = {}
"""Of the samples being fetched in this process: the one sample's under None, and each one's under its index."""


class UseOfRandomness(frozenset[str]):
    """Which global generators beside torch's are seeded for a dataset: some of python, numpy."""

    @classmethod
    def of(cls, part: Any, modules: Iterable[ModuleType]) -> UseOfRandomness:
        """Those that the module of the dataset's class, or one of the user's own `modules`, has imported."""
        own = sys.modules.get(type(part).__module__)
        known = {id(module): module for module in (*modules, own) if module is not None}
        values = [value for module in known.values() for value in vars(module).values()]
        return cls(
            name for name, wanted in (("python", _is_random), ("numpy", _is_numpy_random)) if any(map(wanted, values))
        )


ALL = UseOfRandomness({"python", "numpy"})
"""What a dataset may draw from."""


def _is_random(value: Any) -> bool:
    return value is random or _owner(value) is random._inst


def _is_numpy_random(value: Any) -> bool:
    return value is np or value is np.random or _owner(value) is np.random.mtrand._rand


def _owner(value: Any) -> Any:
    return value.__self__ if isinstance(value, MethodType | BuiltinMethodType) else None


class SampleSeeds:
    """The seeds of one run's samples."""

    def __init__(self, run_seed: int) -> None:
        self._first = lru_cache(maxsize=256)(partial(derived_seed, run_seed))

    def of(self, pass_number: int, sample_id: int) -> int:
        """The seed of a sample in one pass over its dataset, 63 bits."""
        return (self._first(pass_number) + sample_id) % 2**63


class GlobalGenerators:
    """The global generators as they are now: whether they have been drawn from since, and the way back."""

    def __init__(self, use: UseOfRandomness) -> None:
        self._torch = torch.default_generator.get_state()
        self._python = random.getstate() if "python" in use else None
        self._numpy: Any = np.random.get_state() if "numpy" in use else None

    def have_moved(self) -> bool:
        if self._python is not None and random.getstate() != self._python:
            return True
        if self._numpy is not None and _comparable(np.random.get_state()) != _comparable(self._numpy):
            return True
        return _beginning(torch.default_generator.get_state()) != _beginning(self._torch)

    def put_back(self) -> None:
        torch.default_generator.set_state(self._torch)
        if self._python is not None:
            random.setstate(self._python)
        if self._numpy is not None:
            np.random.set_state(self._numpy)


@contextlib.contextmanager
def global_generators_kept(use: UseOfRandomness) -> Iterator[None]:
    """Leave the global generators as they were: items are fetched between the model's own random numbers."""
    generators = GlobalGenerators(use)
    try:
        yield
    finally:
        generators.put_back()


def _beginning(state: torch.Tensor) -> bytes:
    """Seed, position and first numbers of a Mersenne twister: any draw changes one of them."""
    return state.numpy()[:64].tobytes()


def _comparable(state: Any) -> tuple[bytes, int]:
    return state[1].tobytes(), state[2]


def announce_sample(seed: int) -> None:
    """From here to the next call, one sample is being fetched: `sample_generator` is seeded for it, nothing else is."""
    _seeds[None] = seed


def no_sample() -> None:
    """From here on, nothing is being fetched."""
    _seeds.clear()


def seed_sample(seed: int, use: UseOfRandomness) -> None:
    """The same, with the global generators seeded. Costs 3 microseconds, 3 more for numpy, 9 for python."""
    announce_sample(seed)
    torch.default_generator.manual_seed(seed)
    if "python" in use:
        random.seed(seed)
    if "numpy" in use:
        np.random.seed(seed % 2**32)


def seed_samples(seeds: Mapping[int | None, int]) -> None:
    """From here on, the samples with these indices are being fetched together; the seeds are by index."""
    _seeds.clear()
    _seeds.update(seeds)


def sample_generator(kind: Literal["torch", "numpy", "python"] = "torch", index: int | None = None) -> Any:
    """A new generator for the sample being fetched: the same numbers on every world, and after a resume.

    It is a torch.Generator, a numpy.random.Generator or a random.Random. `index` says which sample, in a `__getitems__`
    that fetches several. Two calls for one sample give the same numbers. Raises RuntimeError outside of fetching.
    """
    seed = _seeds.get(None) if index is None or None in _seeds else _seeds.get(index)
    if seed is None:
        fetched = ", ".join(str(each) for each in _seeds) or "none"
        raise RuntimeError(f"no sample {index} is being fetched here; in __getitems__ give an index ({fetched})")
    if kind == "torch":
        return torch.Generator().manual_seed(seed)
    return np.random.default_rng(seed) if kind == "numpy" else random.Random(seed)
