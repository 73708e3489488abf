"""The arithmetic of a run: fp64 and fp32 as they are, bf16 and fp16 by autocast over fp32 weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """How models and batches are placed on `device`, and what the forward pass runs in."""

    name: Literal["fp64", "fp32", "bf16", "fp16"]
    device: torch.device

    def place_model(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model on the device; its floating weights in fp64 for fp64."""
        return model.to(self.device, torch.float64 if self.name == "fp64" else None)

    def place(self, value: Any) -> Any:
        """A batch on the device, tensor by tensor; floating ones in fp64 for fp64. Pinned memory is copied behind."""
        return map_tensors(value, self._place_tensor)

    def _place_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.name == "fp64" and tensor.is_floating_point():
            return tensor.to(self.device, torch.float64, non_blocking=True)
        return tensor.to(self.device, non_blocking=True)

    def forward_context(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast for bf16 and fp16, around the model and the loss; nothing for fp32 and fp64."""
        if self.name in _AUTOCAST:
            return torch.autocast(self.device.type, dtype=_AUTOCAST[self.name])
        return contextlib.nullcontext()

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler: at work for fp16, and passing everything through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`value` with `function` applied to every tensor in its tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [map_tensors(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def call_model(model: torch.nn.Module, inputs: Any) -> Any:
    """model(x) for a tensor, model(*x) for a tuple or list, model(**x) for a dict."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)
