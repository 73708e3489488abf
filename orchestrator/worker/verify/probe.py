"""Experiments on one small micro-batch: the same samples again, on another rank, and apart from each other.

Each rank makes the model anew for each forward pass, seeds it alike, and keeps what every module gave; the first
module that does not give the same is where the difference comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.files import make_private_dir
from orchestrator.plan.verification import Case
from orchestrator.worker.data import CollateDraw, MicroBatch
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.per_sample import PerSampleRandomness
from orchestrator.worker.precision import Precision, call_model, map_tensors
from orchestrator.worker.train import UserParts, make_user_parts, make_windows
from orchestrator.worker.verify.outcome import relative
from orchestrator.worker.verify.trial import Question
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


def probe(question: Question, peers: Peers) -> None:
    """Make the experiments of one rank, and write down what they gave."""
    limit = question.plan.batch.largest_micro_batch or MOST_SAMPLES
    inputs = question.inputs(Case(1, min(limit, MOST_SAMPLES)), "fp64")
    half = question.inputs(Case(1, max(1, min(limit, MOST_SAMPLES) // 2)), "fp64")
    whole, again, part = _forward(inputs), _forward(inputs), _forward(half)
    path = probe_file(question, peers)
    make_private_dir(path.parent)
    facts = {
        "outputs": whole.outputs,
        "loss": whole.loss,
        "again": first_difference(whole.outputs, again.outputs),
        "apart": first_difference(whole.outputs, part.outputs),
        "loss_of_parts": _loss_of_parts(whole),
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


def _forward(inputs: Inputs) -> Forward:
    """A new model on the first micro-batch, in training mode; every random draw is made by sample."""
    precision = Precision("fp64", torch.device("cpu"))
    parts = make_user_parts(inputs, precision)
    draw = make_windows(inputs, world_size=1, rank=0).draws_at(0)[0]
    batch: MicroBatch = CollateDraw(parts.training.collate)(parts.training.__getitems__(draw))
    model_inputs, targets = precision.place((batch.inputs, batch.targets))
    outputs: Outputs = []
    for name, module in parts.model.named_modules():
        module.register_forward_hook(_keeping(name, outputs))
    with torch.no_grad(), PerSampleRandomness(batch.ids, seed=inputs.recipe.seed, step=1, other_shapes=set()):
        result = call_model(parts.model, model_inputs)
        loss = parts.objective.loss(result, targets)[0]
    return Forward(parts, outputs, result, targets, float(loss))


def _keeping(name: str, outputs: Outputs) -> Any:
    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        outputs.extend((name, tensor.detach().clone()) for tensor in _tensors(output))

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
    rows = {tensor.shape[0] for tensor in _tensors(whole.result) + _tensors(whole.targets) if tensor.ndim}
    if len(rows) != 1 or (num_rows := rows.pop()) < 2:
        return None
    total = 0.0
    for part in (slice(num_rows // 2), slice(num_rows // 2, None)):
        result, targets = (_cut(value, part) for value in (whole.result, whole.targets))
        total += float(whole.parts.objective.loss(result, targets)[0])
    return total


def _cut(value: Any, rows: slice) -> Any:
    return map_tensors(value, lambda tensor: tensor[rows] if tensor.ndim else tensor)


def _tensors(value: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return found
