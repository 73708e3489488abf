"""Experiments on one small micro-batch: the same samples again, on another rank, and apart from each other.

Each rank makes the model anew for each forward pass, seeds it alike, and keeps what every module gave; the first
module that does not give the same is where the difference comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from orchestrator.files import make_private_dir
from orchestrator.plan.verification import Case
from orchestrator.worker.data.datasets import CollateDraw, Draw, MicroBatch
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.precision import Precision, call_model, map_tensors
from orchestrator.worker.tensors import tensors_in
from orchestrator.worker.train import UserParts, make_user_parts
from orchestrator.worker.verify.outcome import relative
from orchestrator.worker.verify.per_sample import PerSampleRandomness
from orchestrator.worker.verify.trial import Question
from orchestrator.worker.windows import windows_of
from orchestrator.worker.world import Peers

MOST_SAMPLES = 8
SAME = 1e-9
"""Relative difference in fp64, far above rounding and far below any mistake."""

Outputs = list[tuple[str, torch.Tensor]]
"""What each module gave, by its path, in the order in which they were done."""


@dataclass(frozen=True)
class Forward:
    """One forward pass of a fresh model, and its loss."""

    parts: UserParts
    outputs: Outputs
    result: Any
    targets: Any
    loss: float
    gradients: dict[str, torch.Tensor]
    """Of the loss, by parameter."""
    other_draws: dict[str, tuple[int, ...]]
    """By module, the shape of a random draw whose first dimension was not the micro-batch."""


def probe(question: Question, peers: Peers) -> None:
    """Make the experiments of one rank, and write down what they gave."""
    batch = question.plan.batch
    limit = min(batch.largest_micro_batch or MOST_SAMPLES, batch.effective_batch_size, MOST_SAMPLES)
    inputs = question.inputs(Case(1, limit), "fp64")
    windows = replace(windows_of(inputs, world_size=1, rank=0), effective_batch_size=limit, micro_multiple=1)
    (draw,) = windows.draws_at(0)
    whole, again = _forward(inputs, draw), _forward(inputs, draw)
    parts = [_forward(inputs, half) for half in replace(windows, largest_micro_batch=-(-limit // 2)).draws_at(0)]
    path = probe_file(question, peers)
    make_private_dir(path.parent)
    facts = {
        "outputs": whole.outputs,
        "loss": whole.loss,
        "loss_again": again.loss,
        "again": first_difference(whole.outputs, again.outputs),
        "apart": first_difference(whole.outputs, parts[0].outputs),
        "loss_of_parts": _loss_of_parts(whole),
        "other_draws": whole.other_draws,
        "gradient": _gradient_difference(whole, parts),
        "kinds": {name: type(module).__name__ for name, module in whole.parts.model.named_modules()},
        "batch_norms": [name for name, module in whole.parts.model.named_modules() if _is_batch_norm(module)],
    }
    torch.save(facts, path)
    peers.wait()


def probe_file(question: Question, peers: Peers) -> Path:
    """Where a rank's experiments are written down."""
    return probe_path(question, peers.world.world_size, peers.world.rank)


def probe_path(question: Question, world_size: int, rank: int) -> Path:
    """The same, for whoever reads them."""
    return question.run.path / "probes" / f"{world_size}-{rank}.pt"


def _is_batch_norm(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.modules.batchnorm._BatchNorm)


def _forward(inputs: Inputs, draw: Draw) -> Forward:
    """A new model on one micro-batch, in training mode; every random draw is made by sample."""
    precision = Precision("fp64", torch.device("cpu"))
    parts = make_user_parts(inputs, precision)
    batch: MicroBatch = CollateDraw(parts.training.collate)(parts.training.__getitems__(draw))
    model_inputs, targets = precision.place((batch.inputs, batch.targets))
    outputs: Outputs = []
    shapes: set[tuple[int, ...]] = set()
    other_draws: dict[str, tuple[int, ...]] = {}
    for name, module in parts.model.named_modules():
        module.register_forward_hook(_keeping(name, outputs, shapes, other_draws))
    with PerSampleRandomness(batch.ids, seed=inputs.recipe.seed, step=1, other_shapes=shapes):
        result = call_model(parts.model, model_inputs)
        loss = parts.objective.loss(result, targets)[0]
        loss.backward()
    gradients = {name: value.grad for name, value in parts.model.named_parameters() if value.grad is not None}
    kept = map_tensors(result, torch.Tensor.detach)
    return Forward(parts, outputs, kept, targets, loss.item(), gradients, other_draws)


def _keeping(name: str, outputs: Outputs, shapes: set[tuple[int, ...]], other_draws: dict[str, tuple[int, ...]]) -> Any:
    """A hook that keeps what a module gave; shapes drawn since the last one are told of it, the innermost to end."""

    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        for shape in shapes - set(other_draws.values()):
            other_draws[name] = shape
        outputs.extend((name, tensor.detach().clone()) for tensor in tensors_in(output))

    return hook


def first_difference(one: Outputs, other: Outputs) -> str | None:
    """The path of the first module whose outputs differ in the rows that both have; None where all agree.

    What has other rows than samples, in one micro-batch of them and in a part of it, is not compared.
    """
    for (name, a), (other_name, b) in zip(one, other, strict=False):
        if name != other_name:
            return name
        if a.ndim != b.ndim or not a.is_floating_point():
            continue
        common = tuple(slice(min(sizes)) for sizes in zip(a.shape, b.shape, strict=True))
        if relative(a[common], b[common]) > SAME:
            return name
    return None


def _loss_of_parts(whole: Forward) -> float | None:
    """The loss of the same outputs in two halves, added up; None where there is one sample, or they cannot be cut."""
    rows = {tensor.shape[0] for tensor in tensors_in((whole.result, whole.targets)) if tensor.ndim}
    if len(rows) != 1 or (num_rows := rows.pop()) < 2:
        return None
    total = 0.0
    for part in (slice(num_rows // 2), slice(num_rows // 2, None)):
        result, targets = (_cut(value, part) for value in (whole.result, whole.targets))
        total += float(whole.parts.objective.loss(result, targets)[0])
    return total


def _gradient_difference(whole: Forward, parts: Sequence[Forward]) -> str | None:
    """The parameter whose gradient is farthest from the sum of the parts' gradients; None where all agree."""
    found = {name: sum((part.gradients[name] for part in parts), -value) for name, value in whole.gradients.items()}
    sizes = {name: float(torch.as_tensor(value).norm()) for name, value in found.items()}
    norm = float(torch.stack([value.norm() for value in whole.gradients.values()]).norm()) if sizes else 0.0
    worst = max(sizes, key=lambda name: sizes[name], default=None)
    return worst if worst is not None and sizes[worst] > SAME * norm else None


def _cut(value: Any, rows: slice) -> Any:
    return map_tensors(value, lambda tensor: tensor[rows] if tensor.ndim else tensor)
