"""A two-layer perceptron, its loss and its metric, as a user would write them."""

import torch
from torch import nn


def build(width: int) -> nn.Module:
    """Points in the plane -> scores of two classes: (batch, 2) -> (batch, 2)."""
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))


def loss(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Cross-entropy summed over the batch, and the number of samples."""
    return nn.functional.cross_entropy(scores, labels, reduction="sum"), len(labels)


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Number of right answers, and the number of samples."""
    return (scores.argmax(dim=1) == labels).sum(), len(labels)
