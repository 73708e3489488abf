"""What a translation is trained by: a sum over real tokens, and how many they are."""

import torch
from tokens import PAD
from torch import Tensor
from torch.nn import functional


def token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats, summed over all tokens but PAD, and their number.

    [batch, length, vocabulary] is flattened to [batch * length, vocabulary], [batch, length] to [batch * length].
    """
    loss = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=smoothing, reduction="sum"
    )
    return loss, num_tokens(targets)


def num_tokens(targets: Tensor) -> Tensor:
    """What counts in a batch, known before the forward pass."""
    return (targets != PAD).sum()


@torch.no_grad()
def right_tokens(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """How often the next token is the likeliest one, given the right ones before it."""
    return ((logits.argmax(dim=-1) == targets) & (targets != PAD)).sum(), num_tokens(targets)
