"""What a recipe's model is fed, and how large its parts are, before anything is simulated."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.fit import ModelSizes
from orchestrator.recipe.schema import Recipe
from orchestrator.worker.data.datasets import Datasets, Draw, open_datasets
from orchestrator.worker.data.parts import SampleError
from orchestrator.worker.precision import map_tensors
from orchestrator.worker.targets import UserCode
from orchestrator.worker.tensors import tensors_in

NUM_SAMPLES_LOOKED_AT = 64
_LARGEST_COLLATED = 64
_ACTIVATION_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Sample:
    """The largest of the first samples, from which micro-batches of any size are collated."""

    datasets: Datasets
    item: Any
    words: str
    """Where it comes from, for people."""

    @classmethod
    def of(cls, recipe: Recipe, code: UserCode) -> Sample:
        """Open the training datasets and look at the first samples of each. Raises RecipeError."""
        datasets = open_datasets(code, recipe.datasets, seed=recipe.seed, where="datasets")
        largest: list[tuple[Any, str]] = []
        first = 0
        for index, declared in enumerate(recipe.datasets):
            num_samples = min(NUM_SAMPLES_LOOKED_AT, declared.num_samples)
            try:
                items = [datasets.__getitems__(Draw((i,), (0,), 1))[1][0] for i in range(first, first + num_samples)]
            except SampleError as error:
                raise RecipeError(Problem(f"datasets.{index}", str(error))) from error
            words = f"the largest of the first {num_samples} samples of {declared.name!r}"
            largest.append((max(items, key=_num_elements), words))
            first += declared.num_samples
        item, words = max(largest, key=lambda found: _num_elements(found[0]))
        if len(largest) > 1:
            words += f", the largest of {len(largest)} datasets"
        return cls(datasets, item, words)

    def micro_batch(self, size: int) -> tuple[Any, Any]:
        """(inputs, targets) of `size` copies of the sample, collated as for training."""
        inputs, targets = self.datasets.collate([self.item] * size)
        return inputs, targets

    def fake_micro_batch(self, size: int, mode: FakeTensorMode) -> tuple[Any, Any]:
        """The same in fake memory; a large one as the growth from 2 to 3 samples goes on, where it is that simple."""
        if size > _LARGEST_COLLATED:
            two, three = self.micro_batch(2), self.micro_batch(3)
            with contextlib.suppress(_NotRegular), mode:
                return cast(tuple[Any, Any], _grown(two, three, size))
        return cast(tuple[Any, Any], map_tensors(self.micro_batch(size), mode.from_tensor))


class _NotRegular(Exception):
    """A collated value that does not grow by the same amount with every sample."""


def _grown(two: Any, three: Any, size: int) -> Any:
    """What collating `size` samples gives, to go by what it gives for two and for three. Raises _NotRegular."""
    if isinstance(two, torch.Tensor):
        shape = [d + (e - d) * (size - 2) for d, e in zip(two.shape, three.shape, strict=True)]
        return torch.empty(shape, dtype=two.dtype)
    if isinstance(two, dict) and two.keys() == three.keys():
        return {key: _grown(value, three[key], size) for key, value in two.items()}
    if isinstance(two, tuple | list) and len(two) == len(three):
        items = [_grown(*pair, size) for pair in zip(two, three, strict=True)]
        return type(two)(*items) if hasattr(two, "_fields") else type(two)(items)
    if two is None:
        return None
    raise _NotRegular


def _num_elements(item: Any) -> int:
    return sum(tensor.numel() for tensor in tensors_in(item)) or _num_leaves(item)


def _num_leaves(item: Any) -> int:
    """The size of what is no tensor yet: arrays by their size, texts and lists by their length."""
    if isinstance(item, dict):
        item = list(item.values())
    if isinstance(item, tuple | list):
        return sum(map(_num_leaves, item))
    return int(getattr(item, "size", 0) or (len(item) if isinstance(item, str | bytes) else 1))


def model_sizes(model: torch.nn.Module, sample: Sample, *, precision: str) -> ModelSizes:
    """Bytes of the model's tensors, and its activations by a first-order rule.

    Every weight matrix or kernel gives out its first dimension at every position of the sample (a token, a pixel), and
    as much again is remembered on the way. Pooling and strides are not seen, so convolutions are overestimated.
    """
    widths = sum(
        weight.shape[1] if isinstance(module, torch.nn.Embedding) else weight.shape[0]
        for module in model.modules()
        for weight in module.parameters(recurse=False)
        if weight.ndim >= 2
    )
    return ModelSizes(
        parameter_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        trained_bytes=sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad),
        buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
        activation_bytes=2 * widths * _num_positions(sample) * _ACTIVATION_BYTES[precision],
    )


def _num_positions(sample: Sample) -> int:
    """Positions of one sample: its tokens (integers), its pixels (channels first), or its rows of features."""
    tensor = max(tensors_in(sample.micro_batch(1)[0]), key=torch.Tensor.numel, default=None)
    if tensor is None:
        return 1
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor.numel()
    return tensor.numel() // max(1, tensor.shape[1] if tensor.ndim >= 4 else tensor.shape[-1])
