"""The tensors in whatever a dataset, a model or an optimizer gives: found and counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in the dicts, lists and tuples of `value`."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)


def num_bytes_of(value: Any) -> int:
    """Bytes of all tensors in `value`, each one counted once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors_in(value)}.values())
