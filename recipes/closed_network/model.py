"""A frozen encoder of the hub and a linear layer on top, and what that is trained and judged by.

Shapes: B texts, T tokens, W the encoder's width, C sections.
"""

import os

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel


class Classifier(nn.Module):
    """Ids and mask, (B, T) twice, to scores, (B, C)."""

    def __init__(self, encoder: nn.Module, width: int, num_sections: int) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.head = nn.Linear(width, num_sections)

    def train(self, mode: bool = True) -> "Classifier":
        """As ever, but for the encoder: its dropout stays off, since it learns nothing."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head(mean_of_tokens(states, mask))


def mean_of_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """(B, W) of (B, T, W): the mean over the tokens where `mask`, (B, T), is 1. What is padded counts for nothing."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def classifier(num_sections: int) -> Classifier:
    """The encoder as it was staged, read from its folder, and a new head."""
    folder = os.environ["ORCHESTRATE_ASSET_ENCODER"]
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
    return Classifier(encoder, encoder.config.hidden_size, num_sections)


def cross_entropy(scores: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """The loss as a sum over texts, and their number."""
    return functional.cross_entropy(scores, labels, reduction="sum"), labels.numel()


@torch.no_grad()
def accuracy(scores: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Right answers, and how many there could be."""
    return (scores.argmax(dim=1) == labels).sum(), labels.numel()
