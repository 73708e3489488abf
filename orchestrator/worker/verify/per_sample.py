"""Randomness by sample: what a forward pass draws for a sample hangs on the sample, not on rank or micro-batch.

torch's own dropout draws one stream per rank and step: fast, and another one on another world. For verification this
mode stands under every operation that torch marks as random (dropout in all its forms, noise, sampling). Where the
first dimension of what is drawn is the micro-batch, each row is drawn from a generator seeded by (run seed, step,
how-many-th draw, sample id); anything else, such as the coin of a LayerDrop, by the same without the sample, alike in
all micro-batches. Generators that a model keeps for itself are left alone: they are what verification looks for.

Which draw it is, is read off torch's generator, which one number per draw moves on. So it also holds for activations
that are recomputed in the backward pass: there torch itself puts the generator back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.worker.seeds import derived_seed, seed_torch

_EMPTY = (-1,)
"""An empty micro-batch holds one sample, whose numbers count for nothing."""


class PerSampleRandomness(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Put it around forward and backward of one micro-batch, whose samples have `ids` in the order of its rows."""

    def __init__(self, ids: Sequence[int], *, seed: int, step: int, other_shapes: set[tuple[int, ...]]) -> None:
        """`other_shapes` takes the shapes of draws whose first dimension was not the micro-batch."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._ids = tuple(ids) or _EMPTY
        self._seed = derived_seed(seed, step)
        self._other_shapes = other_shapes

    def __enter__(self) -> PerSampleRandomness:
        torch.default_generator.manual_seed(self._seed)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or not _draws(func, args, kwargs):
            return func(*args, **kwargs)
        draw = int(torch.randint(2**62, (), dtype=torch.int64))
        state = torch.default_generator.get_state()
        try:
            return self._drawn(func, args, kwargs, draw)
        finally:
            torch.default_generator.set_state(state)

    def _drawn(self, func: Any, args: Any, kwargs: Any, draw: int) -> Any:
        shape, device = _shape_of(args), _device_of(args, kwargs)
        num_rows = len(self._ids)
        if not shape or shape[0] != num_rows:
            if shape:
                self._other_shapes.add(shape)
            seed_torch(derived_seed(draw), device)
            return func(*args, **kwargs)
        results = []
        for row, sample_id in enumerate(self._ids):
            seed_torch(derived_seed(draw, sample_id), device)
            results.append(func(*(_row(value, row, num_rows) for value in args), **kwargs))
        return args[0] if _works_in_place(func) else _joined(results)


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a random operation draws from torch's own generator: not from another one, nor for a dropout of 0."""
    given = {**dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)), **kwargs}
    if "dropout_p" in (argument.name for argument in func._schema.arguments):
        return bool(given.get("dropout_p", 0.0))
    own = given.get("generator")
    return own is None or own is torch.default_generator


def _works_in_place(func: Any) -> bool:
    written = func._schema.arguments[0].alias_info
    return written is not None and bool(written.is_write)


def _shape_of(args: Any) -> tuple[int, ...]:
    """The shape of what is drawn: that of the first tensor, or the first list of sizes."""
    for value in args:
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        if isinstance(value, list | tuple):
            return tuple(value)
    return ()


def _device_of(args: Any, kwargs: Any) -> torch.device:
    tensor = next((value for value in args if isinstance(value, torch.Tensor)), None)
    return torch.device(kwargs.get("device") or "cpu") if tensor is None else tensor.device


def _row(value: Any, row: int, num_rows: int) -> Any:
    """One row of a tensor, or of a list of sizes, that has `num_rows` of them; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value[row : row + 1] if value.ndim and value.shape[0] == num_rows else value
    if isinstance(value, list | tuple) and value and value[0] == num_rows:
        return [1, *value[1:]]
    return value


def _joined(results: list[Any]) -> Any:
    if isinstance(results[0], torch.Tensor):
        return torch.cat(results)
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
