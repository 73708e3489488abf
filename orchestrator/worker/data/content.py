"""What the datasets hold, as hashes: alike on all ranks, and told when a file has changed since a checkpoint."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from orchestrator.errors import Problem, RunError
from orchestrator.tracking.journal import Journal
from orchestrator.worker.data.datasets import Datasets
from orchestrator.worker.data.parts import BadSample, Part, SampleError, StreamPart
from orchestrator.worker.randomness import ALL, global_generators_kept
from orchestrator.worker.world import Peers

_SEED = 0
"""Of every item that is looked at: what a dataset holds does not hang on the run's seed."""


def content_of(datasets: Datasets) -> dict[str, str]:
    """By dataset, a hash of what it holds: its own `fingerprint` if it has one, else its size and a few items.

    The items are the first, the middle and the last one; of a stream the first. Where an item is another one each time
    it is fetched, the size alone: see `unrepeatable`.
    """
    with global_generators_kept(ALL):
        return {part.name: hashlib.sha256("\n".join(_told(part)).encode()).hexdigest() for part in datasets.parts}


def unrepeatable(datasets: Datasets) -> list[str]:
    """The datasets whose first item is another one each time, however its generators are seeded."""
    with global_generators_kept(ALL):
        return [part.name for part in datasets.parts if not hasattr(part.dataset, "fingerprint") and not _repeats(part)]


def check_contents(
    training: Datasets, validation: Mapping[str, Datasets], peers: Peers, journal: Journal
) -> dict[str, str]:
    """What the training sets hold, by `content_of`.

    A collective. Raises RunError, on every rank, where a rank has other data than rank 0.

    A training set whose items are others each time is journaled: they hang on what nobody has seeded.
    """
    contents = content_of(training)
    others = {f"validation {name}": each for name, held in validation.items() for each in content_of(held).values()}
    refuse_other_data(contents | others, peers)
    if peers.world.rank == 0:
        for name in unrepeatable(training):
            journal.event("unrepeatable", {"dataset": name})
    return contents


def refuse_other_data(contents: Mapping[str, str], peers: Peers) -> None:
    """One small collective. Raises RunError, on every rank, where a rank has other data than rank 0."""
    world = peers.world
    own = [int(content[:15], 16) for content in contents.values()]
    rows = [0] * (len(own) * world.world_size)
    rows[world.rank * len(own) : (world.rank + 1) * len(own)] = own
    rows = peers.sum_counts(rows)
    by_rank = [rows[start : start + len(own)] for start in range(0, len(rows), len(own))]
    problems = [
        Problem(
            f"rank {rank}",
            f"dataset {name!r} is not what rank 0 has",
            "let every node read the same files; where items are random on purpose, give the dataset a `fingerprint`",
        )
        for rank, row in enumerate(by_rank)
        for name, here, first in zip(contents, row, by_rank[0], strict=True)
        if here != first
    ]
    if problems:
        raise RunError(problems)


def _told(part: Part) -> Iterator[str]:
    if hasattr(part.dataset, "fingerprint"):
        yield str(part.dataset.fingerprint)
        return
    yield str(part.size)
    if not _repeats(part):
        return
    last = 0 if isinstance(part, StreamPart) else part.size - 1
    for index in dict.fromkeys((0, last // 2, last)):
        yield _item_hash(part, index)


def _repeats(part: Part) -> bool:
    return _item_hash(part, 0) == _item_hash(part, 0)


def _item_hash(part: Part, index: int) -> str:
    """Of one item, its generators seeded; of what is raised in its place, that it is."""
    random.seed(_SEED)
    np.random.seed(_SEED)
    try:
        item = part.fetch([index], 0, [_SEED])[0]
    except SampleError as error:
        return str(error)
    finally:
        if isinstance(part, StreamPart):
            part.close()
    if isinstance(item, BadSample):
        return str(item)
    digest = hashlib.sha256()
    for piece in _pieces(item):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    """The bytes of tensors, arrays, texts and numbers, in tuples, lists and dicts; of anything else its type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key).encode()
            yield from _pieces(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _pieces(item)
    elif isinstance(value, str | int | float | bytes | bool | np.generic | None):
        yield repr(value).encode()
    else:
        yield type(value).__name__.encode()
