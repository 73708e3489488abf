"""Randomness by sample: what is drawn for a sample hangs on the sample alone, whatever operation draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from orchestrator.worker.verify.per_sample import PerSampleRandomness

DRAWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": lambda x: functional.dropout(x, 0.3),
    "dropout of whole features": lambda x: functional.dropout2d(x, 0.3),
    "alpha dropout": lambda x: functional.alpha_dropout(x, 0.3, training=True),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
    "noise like it": lambda x: x + torch.randn_like(x),
    "noise of its shape": lambda x: x + torch.rand(x.shape),
    "a coin of that chance": lambda x: torch.bernoulli(x.abs().clamp(0, 1)),
    "a leaky slope": lambda x: functional.rrelu(x, training=True),
    "one sample of a distribution": lambda x: functional.gumbel_softmax(x),
    "two draws": lambda x: functional.dropout(functional.dropout(x, 0.2), 0.2),
    "a layer left out": lambda x: x * (torch.rand(()) > 0.5),
}


def drawn(function: Callable[[torch.Tensor], torch.Tensor], ids: Sequence[int], *, step: int = 1) -> torch.Tensor:
    """What `function` gives for samples that all look alike."""
    sample = torch.linspace(-1, 1, 3 * 4 * 5, dtype=torch.float64).reshape(1, 3, 4, 5)
    with PerSampleRandomness(ids, seed=7, step=step, other_shapes=set()):
        return function(sample.expand(len(ids), -1, -1, -1).clone())


@pytest.mark.parametrize("name", DRAWS)
def test_a_sample_gets_the_same_in_any_micro_batch(name: str) -> None:
    whole = drawn(DRAWS[name], [30, 10, 20, 40])
    parts = torch.cat([drawn(DRAWS[name], [10]), drawn(DRAWS[name], [40, 20]), drawn(DRAWS[name], [30])])
    assert torch.equal(whole[[1, 3, 2, 0]], parts)


@pytest.mark.parametrize("name", sorted(set(DRAWS) - {"a layer left out"}))
def test_samples_and_steps_get_masks_of_their_own(name: str) -> None:
    one, other = drawn(DRAWS[name], [1, 2])
    assert not torch.equal(one, other)
    assert not torch.equal(drawn(DRAWS[name], [1], step=2)[0], one)


def test_two_dropouts_of_one_forward_pass_mask_differently() -> None:
    def both(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([functional.dropout(torch.ones_like(x), 0.5) for _ in range(2)], dim=1)

    first, second = drawn(both, [1])[0]
    assert not torch.equal(first, second)


def test_dropout_keeps_its_rate_and_its_scale() -> None:
    kept = drawn(lambda x: functional.dropout(torch.ones_like(x), 0.25), range(400))
    assert set(kept.unique().tolist()) == {0.0, 1 / 0.75}
    assert 0.73 < (kept > 0).double().mean().item() < 0.77


def test_a_recomputed_forward_pass_draws_the_same_again() -> None:
    x = torch.ones(4, 50, dtype=torch.float64, requires_grad=True)
    with PerSampleRandomness(range(4), seed=7, step=1, other_shapes=set()):
        result = checkpoint(lambda value: functional.dropout(value, 0.5) ** 2, x, use_reentrant=False)
        result.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * result.detach())


def test_a_generator_of_ones_own_is_left_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    with PerSampleRandomness([1, 2], seed=7, step=1, other_shapes=set()):
        one = torch.rand(2, 5, generator=generator)
    assert torch.equal(one, torch.rand(2, 5, generator=torch.Generator().manual_seed(3)))


def test_draws_without_the_micro_batch_in_front_are_told() -> None:
    shapes: set[tuple[int, ...]] = set()
    with PerSampleRandomness([1, 2], seed=7, step=1, other_shapes=shapes):
        functional.dropout(torch.ones(9, 2, 4), 0.5)
        functional.dropout(torch.ones(2, 4), 0.5)
    assert shapes == {(9, 2, 4)}
