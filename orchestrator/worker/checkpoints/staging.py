"""A second copy of the state in host memory, so that training goes on while the first one is being written."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.worker.tensors import tensors_in

_Key = tuple[Any, ...]


@dataclass(frozen=True)
class Staged:
    """A copy that no step changes. `wait` for it before reading: copies from a GPU arrive behind the step's work."""

    value: Any
    wait: Callable[[], None]


class Staging:
    """Buffers for one state, used again for the next: pinned ones for a GPU's tensors. They hold one state's bytes."""

    def __init__(self) -> None:
        self._buffers: dict[_Key, torch.Tensor] = {}

    def copy(self, value: Any) -> Staged:
        """`value` with copies of its tensors; two names of one tensor stay so. The copy before is overwritten."""
        used: dict[_Key, torch.Tensor] = {}
        with _one_thread():
            copied = self._copied(value, (), used, {})
        self._buffers = used
        if not any(tensor.is_cuda for tensor in tensors_in(value)):
            return Staged(copied, lambda: None)
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        arrived.record()
        return Staged(copied, arrived.synchronize)

    def _copied(self, value: Any, path: _Key, used: dict[_Key, torch.Tensor], seen: dict[_Key, torch.Tensor]) -> Any:
        if isinstance(value, torch.Tensor):
            same = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            if same not in seen:
                seen[same] = used[path] = self._filled(value.detach(), path)
            return seen[same]
        if isinstance(value, dict):
            made = copy.copy(value)  # keeps what a model's state_dict has beside its entries: `_metadata`
            made.update({key: self._copied(item, (*path, key), used, seen) for key, item in value.items()})
            return made
        if isinstance(value, list | tuple):
            return type(value)(self._copied(item, (*path, index), used, seen) for index, item in enumerate(value))
        return value

    def _filled(self, tensor: torch.Tensor, path: _Key) -> torch.Tensor:
        buffer = self._buffers.get(path)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return buffer.copy_(tensor, non_blocking=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Several would wait for the slowest core at every tensor: on busy cores twenty times as long, measured."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
