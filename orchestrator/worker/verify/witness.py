"""What every sample was: a hash of each item as the dataset gave it, before it is collated with others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from orchestrator.worker.data.datasets import Collate, Datasets, Draw


class Witness:
    """Datasets that write down what they hand out: `seen` has (sample id, hash) of every sample that counts.

    `rotated`, each micro-batch begins with its second sample and ends with its first: the same sums in another order.
    """

    def __init__(self, datasets: Datasets, *, rotated: bool) -> None:
        self._datasets, self._rotated = datasets, rotated
        self.seen: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._datasets)

    def __getitems__(self, draw: Draw) -> tuple[Draw, list[Any]]:
        draw, items = self._datasets.__getitems__(draw)
        if self._rotated and draw.num_samples:
            draw, items = draw._replace(ids=(*draw.ids[1:], draw.ids[0])), [*items[1:], items[0]]
        counted = items[: draw.num_samples]
        self.seen += zip(draw.ids, map(digest_of, counted), strict=False)
        return draw, items

    def lengths_of(self, ids: Sequence[int]) -> list[int]:
        return self._datasets.lengths_of(ids)

    @property
    def collate(self) -> Collate:
        return self._datasets.collate


def digest_of(item: Any) -> str:
    """A hash of an item's tensors, arrays, numbers and texts; objects of other kinds count by their type alone."""
    digest = hashlib.blake2b(digest_size=8)
    _add(digest, item)
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, value: Any) -> None:
    match value:
        case torch.Tensor():
            digest.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        case np.ndarray():
            digest.update(f"array {value.dtype} {value.shape}".encode() + value.tobytes())
        case dict():
            digest.update(f"dict {len(value)}".encode())
            for key, part in value.items():
                _add(digest, key)
                _add(digest, part)
        case list() | tuple():
            digest.update(f"{type(value).__name__} {len(value)}".encode())
            for part in value:
                _add(digest, part)
        case bytes():
            digest.update(b"bytes " + value)
        case str() | bool() | int() | float() | complex() | None | np.generic():
            digest.update(f"{type(value).__name__} {value!r}".encode())
        case _:
            digest.update(type(value).__qualname__.encode())
