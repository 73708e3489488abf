"""A micro-batch in two precisions: sound models agree, others do not, and nothing is left behind."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from orchestrator.tuning.amp_law import Lower, refusal
from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.loss import Objective
from orchestrator.worker.precision import Precision
from orchestrator.worker.tuning.gradients import Comparison
from tests.worker.recipes import CODE

NUM_SAMPLES, NUM_FEATURES = 32, 6
WEIGHT = 1 / NUM_SAMPLES


class Attention(nn.Module):
    """A small transformer over the features, with weights that are shared and a parameter that nothing hangs on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 32)
        layer = nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, dropout=0.2, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.unused = nn.Linear(3, 3)
        self.last = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.blocks(self.first(x.unsqueeze(-1))).mean(dim=1))
        return logits


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(NUM_FEATURES, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, 3),
    )  # fmt: skip


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, NUM_FEATURES)), nn.Conv1d(1, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Conv1d(16, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * NUM_FEATURES, 3),
    )  # fmt: skip


@pytest.fixture
def user_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of the tests' user code can be imported."""
    monkeypatch.syspath_prepend(str(CODE))
    yield
    for name in ("precise", "layers"):
        sys.modules.pop(name, None)


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
    return nn.functional.cross_entropy(outputs, targets, reduction="sum"), len(targets)


def comparison_of(model: nn.Module) -> Comparison:
    return Comparison(model, Objective(cross_entropy, None, ()), Precision("fp32", torch.device("cpu")))


def batch_of(seed: int = 0) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(NUM_SAMPLES, NUM_FEATURES, generator=generator)
    return MicroBatch(range(NUM_SAMPLES), NUM_SAMPLES, features, features[:, :3].argmax(dim=1))


@pytest.mark.parametrize("lower", ["bf16", "fp16", "tf32"])
@pytest.mark.parametrize("make", [perceptron, convolutions, Attention])
def test_sound_models_agree_in_every_layer_at_first_and_when_they_have_learnt(
    make: type[nn.Module], lower: Lower
) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(60):
        if step % 20 == 0:
            seen = comparison_of(model).agreement(batch_of(step), lower, WEIGHT)
            assert refusal(seen, comparison_of(model).layers[seen.layer]) is None, seen
        batch = batch_of(step)
        optimizer.zero_grad()
        cross_entropy(model(batch.inputs), batch.targets)[0].backward()
        optimizer.step()


@pytest.mark.usefixtures("user_models")
def test_a_gradient_that_dies_is_seen_although_the_loss_is_the_same() -> None:
    from precise import Vanishing  # type: ignore[import-not-found]

    torch.manual_seed(0)
    comparison = comparison_of(Vanishing(fp32_s=0.0, lower_s=0.0))
    seen = comparison.agreement(batch_of(), "bf16", WEIGHT)
    assert seen.loss_gap < 0.001 and seen.cosine == 0.0 and seen.norm_ratio == 0.0
    why = refusal(seen, comparison.layers[seen.layer])
    assert why is not None and why.startswith("the gradient of ")


def test_one_layer_that_is_wrong_is_enough_and_is_named() -> None:
    """Its share of the whole gradient is small."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.offset = nn.Linear(NUM_FEATURES, 3), nn.Linear(NUM_FEATURES, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shift = self.offset(x)
            if torch.is_autocast_enabled("cpu"):
                shift = shift - 1.5 * (shift - shift.detach())
            logits: torch.Tensor = self.good(x) + 0.001 * shift
            return logits

    torch.manual_seed(0)
    comparison = comparison_of(Small())
    seen = comparison.agreement(batch_of(), "bf16", WEIGHT)
    assert comparison.layers[seen.layer] == "offset" and seen.cosine < -0.9
    assert "the gradient of offset is another one" in str(refusal(seen, "offset"))


def test_nothing_is_left_behind() -> None:
    """Weights, buffers, modes, gradients, and all random states."""
    torch.manual_seed(0)
    model = perceptron()
    model[3].eval()  # as its user wants it
    model[0].weight.grad = torch.ones_like(model[0].weight)
    precision = Precision("fp32", torch.device("cpu"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    Comparison(model, Objective(cross_entropy, None, ()), precision).agreement(batch_of(), "fp16", WEIGHT)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight)) and model[4].weight.grad is None
    now = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(now[0], states[0]) and now[1:] == states[1:]
    assert precision.in_use == "fp32" and not precision.scaler.is_enabled()


def test_the_loss_scale_of_a_run_in_fp16_is_not_touched_when_it_is_looked_at_again() -> None:
    precision = Precision("fp32", torch.device("cpu"))
    precision.use("fp16")
    scaler = precision.scaler
    scaler.scale(torch.ones(()))
    scaler.update(512.0)
    Comparison(perceptron(), Objective(cross_entropy, None, ()), precision).agreement(batch_of(), "fp16", WEIGHT)
    assert precision.scaler is scaler and scaler.get_scale() == 512.0 and precision.in_use == "fp16"
    precision.use(None)
    assert not scaler.is_enabled()


def test_a_batch_that_the_model_changes_in_place_is_trained_on_as_it_was() -> None:
    """On a CPU the model is given the very tensors of the loader."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(NUM_FEATURES, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.last(x.sub_(1.0).mul_(3.0))
            return logits

    batch = batch_of()
    seen = comparison_of(InPlace()).agreement(batch, "bf16", WEIGHT)
    assert torch.equal(batch.inputs, batch_of().inputs) and seen.cosine > 0.999


def test_a_buffer_that_the_model_replaces_is_put_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(NUM_FEATURES, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls = self.calls + 1
            logits: torch.Tensor = self.last(x)
            return logits

    model = Counting()
    before = model.calls
    comparison_of(model).agreement(batch_of(), "bf16", WEIGHT)
    assert model.calls is before and model.calls == 0.0


def test_both_draw_the_same_noise() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(NUM_FEATURES, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.last(x + torch.randn(x.shape) + np.random.randn() + random.random())
            return logits

    assert comparison_of(Noisy()).agreement(batch_of(), "tf32", WEIGHT).badness < 1e-6


def test_a_recurrent_layer_is_compared_as_it_trains() -> None:
    """cuDNN gives no gradient of one that is not in training mode."""
    modes = []

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.last = nn.GRU(1, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            modes.append(self.cells.training)
            logits: torch.Tensor = self.last(self.cells(x.unsqueeze(-1))[0][:, -1])
            return logits

    comparison = comparison_of(Recurrent())
    seen = comparison.agreement(batch_of(), "bf16", WEIGHT)
    assert modes == [True, True] and refusal(seen, comparison.layers[seen.layer]) is None


def test_a_model_whose_ranks_exchange_something_in_its_forward_pass_is_told() -> None:
    assert comparison_of(nn.Sequential(nn.SyncBatchNorm(3))).waits_for_ranks
    assert not comparison_of(perceptron()).waits_for_ranks
