"""The arithmetic of a run: fp64 and fp32 as they are, bf16 and fp16 by autocast over fp32 weights.

Tuning may change what the forward pass of an fp32 recipe runs in: weights, gradients and the optimizer's state are fp32
all along, so that the way there and back changes none of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from orchestrator.tuning.amp_law import Lower

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NOTHING = contextlib.nullcontext()


@dataclass
class Precision:
    """How models and batches are placed on `device`, and what the forward pass runs in."""

    name: Literal["fp64", "fp32", "bf16", "fp16"]
    """The recipe's."""
    device: torch.device
    lower: Lower | None = field(default=None, init=False)
    """What tuning has the forward pass run in, see `use`; None: as the recipe says."""
    _matmul: str | None = field(default=None, init=False)
    """What CUDA's products of fp32 matrices were before `tf32`; None where they are that still."""
    scaler: torch.amp.GradScaler = field(init=False)
    """The loss scaler: at work for fp16, and passing everything through otherwise."""

    def __post_init__(self) -> None:
        self.scaler = self._new_scaler()

    def begin(self) -> None:
        """Set this process up for its arithmetic. Call it before anything is computed: threads made later inherit it.

        On a CPU, numbers too small to be normal ones (below 1e-38 in fp32) become zero: Adam's moments of weights that
        have no gradient any more decay into them, and arithmetic with them is slow (decision 19). fp64 stays as it is.
        """
        torch.set_flush_denormal(self.device.type == "cpu" and self.name != "fp64")

    def place_model(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model on the device; its floating weights in fp64 for fp64."""
        return model.to(self.device, torch.float64 if self.name == "fp64" else None)

    def place(self, value: Any) -> Any:
        """A batch on the device, tensor by tensor; floating ones in fp64 for fp64.

        Copies to a GPU are queued on a stream of their own: from pinned memory they run beside the step before, which
        is still being computed, and only what is queued from here on waits for them.
        """
        if self.device.type == "cpu":
            return map_tensors(value, self._place_tensor) if self.name == "fp64" else value
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copying):
            placed = map_tensors(value, lambda tensor: self._place_tensor(tensor) if tensor.is_cpu else tensor)
        computing.wait_stream(self._copying)

        def hand_over(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(computing)  # its memory is not used again before the step is done with it
            return self._place_tensor(tensor)

        return map_tensors(placed, hand_over)

    @cached_property
    def _copying(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def _place_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.name == "fp64" and tensor.is_floating_point():
            return tensor.to(self.device, torch.float64, non_blocking=True)
        return tensor.to(self.device, non_blocking=True)

    @property
    def in_use(self) -> str:
        """What the forward pass runs in."""
        return self.lower or self.name

    def use(self, lower: Lower | None) -> None:
        """Run the forward pass in `lower` from now on, or (None) as the recipe says; on every rank, between two steps.

        The loss scaler, which others hold too, begins anew where fp16 begins.
        """
        self._set(lower)
        if self.scaler.is_enabled() != (self.in_use == "fp16"):
            vars(self.scaler).update(vars(self._new_scaler()))

    @contextlib.contextmanager
    def trying(self, lower: Lower | None) -> Iterator[None]:
        """Forward and backward passes inside run in `lower`; the loss scaler has no part in it."""
        before = self.lower
        self._set(lower)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, lower: Lower | None) -> None:
        products = torch.backends.cuda.matmul
        if lower == "tf32" and self._matmul is None:
            self._matmul, products.fp32_precision = products.fp32_precision, "tf32"
        elif lower != "tf32" and self._matmul is not None:
            products.fp32_precision, self._matmul = self._matmul, None
        self.lower = lower

    def forward_context(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast for bf16 and fp16, around the model and the loss; nothing for fp32, tf32 and fp64."""
        if self.in_use in _AUTOCAST:
            return torch.autocast(self.device.type, dtype=_AUTOCAST[self.in_use])
        return _NOTHING

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.in_use == "fp16")


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
