"""One micro-batch in two precisions: whether loss and gradients agree. Nothing of it is left in the model."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from orchestrator.tuning.amp_law import Agreement, Lower
from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.loss import Objective
from orchestrator.worker.precision import Precision, call_model, map_tensors
from orchestrator.worker.randomness import ALL, global_generators_kept

_FIRST_SCALE = 65536.0
"""What GradScaler begins with."""

_TRAINED_ONLY = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.RNNBase)


@dataclass(frozen=True)
class Comparison:
    """Compares precisions on `model`, the bare one: no rank waits for another."""

    model: torch.nn.Module
    objective: Objective
    precision: Precision

    @property
    def waits_for_ranks(self) -> bool:
        """Whether a forward pass of the model exchanges something with other ranks."""
        return any(isinstance(module, torch.nn.SyncBatchNorm) for module in self.model.modules())

    @property
    def layers(self) -> list[str]:
        """Modules that have parameters of their own, in the order of the model."""
        return list(dict.fromkeys(_layer_of(name) for name, _ in self._parameters()))

    def agreement(self, batch: MicroBatch, lower: Lower, weight: float) -> Agreement:
        """How the gradients in `lower` agree with those in the recipe's precision. Raises what the model raises.

        `weight` is what training weighs the loss of the micro-batch by: in fp16 it decides what is too small. Dropout
        is off, and both draw the same random numbers, so that both are the same function; batch norms see the batch.
        The batch, the model's buffers, its modes, the random states and the gradients are afterwards what they were
        before; attributes in Python that the model changes when it is called are not.
        """
        device = self.precision.device
        with _buffers_kept(self.model), _without_dropout(self.model):
            with self.precision.trying(None), _random_states_kept(device):
                loss, gradients = self._gradients(batch, weight)
            with self.precision.trying(lower), _random_states_kept(device):
                lower_loss, lower_gradients = self._gradients(batch, weight)
        gap = abs(lower_loss - loss) / max(abs(loss), 1e-12)
        return self._worst_layer(gap, gradients, lower_gradients)

    def _parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]

    def _gradients(self, batch: MicroBatch, weight: float) -> tuple[float, list[torch.Tensor]]:
        """The loss, and the gradient of each parameter: zeros where the loss does not hang on it."""
        own = map_tensors((batch.inputs, batch.targets), torch.clone)  # a model may change them in place
        inputs, targets = self.precision.place(own)
        with self.precision.forward_context():
            loss, _ = self.objective.loss(call_model(self.model, inputs), targets)
        scale = weight * self._scale() if self.precision.in_use == "fp16" else 1.0
        parameters = [one for _, one in self._parameters()]
        found = torch.autograd.grad(loss * scale, parameters, allow_unused=True, materialize_grads=True)
        return float(loss.detach()), [one.div_(scale) if scale != 1.0 else one for one in found]

    def _scale(self) -> float:
        """The loss scale that training has, or would begin with."""
        scaler = self.precision.scaler
        return scaler.get_scale() if scaler.is_enabled() else _FIRST_SCALE

    def _worst_layer(self, gap: float, one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> Agreement:
        products = defaultdict[str, torch.Tensor](lambda: torch.zeros(3, dtype=torch.float64))
        for (name, _), a, b in zip(self._parameters(), one, other, strict=True):
            sums = [(left * right).sum(dtype=torch.float64) for left, right in ((a, a), (b, b), (a, b))]
            products[_layer_of(name)] += torch.stack(sums).cpu()
        found = [_agreement(gap, products[layer].tolist(), index) for index, layer in enumerate(self.layers)]
        return max(found, key=lambda agreement: agreement.badness)


def _agreement(gap: float, products: Sequence[float], layer: int) -> Agreement:
    own, lower, both = products
    if own == lower == 0.0:
        return Agreement(gap, layer=layer)
    norms = math.sqrt(own) * math.sqrt(lower) if own >= 0 and lower >= 0 else math.nan
    cosine = both / norms if norms else 0.0
    return Agreement(gap, cosine, math.sqrt(lower / own) if own else math.nan, layer)


def _layer_of(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


@contextlib.contextmanager
def _random_states_kept(device: torch.device) -> Iterator[None]:
    """They are put back at the end."""
    with global_generators_kept(ALL), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextlib.contextmanager
def _buffers_kept(model: torch.nn.Module) -> Iterator[None]:
    """Buffers are put back at the end, those that a module has replaced too."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, before in kept:
                setattr(module, name, buffer.copy_(before))


@contextlib.contextmanager
def _without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """As in evaluation, but for batch norms, and for recurrent layers, which cuDNN takes no gradient of there."""
    modes = [(module, module.training) for module in model.modules()]
    for module, was_training in modes:
        module.training = was_training and isinstance(module, _TRAINED_ONLY)
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
