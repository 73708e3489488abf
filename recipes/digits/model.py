"""A small convolutional network for 8 x 8 images, and what it is trained and judged by.

No BatchNorm and no dropout: what one sample computes does not hang on which others share its micro-batch or rank, so
the loss curve is the same on one process and on sixteen.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def network(channels: int = 32) -> nn.Module:
    """Images, shape (batch, 1, 8, 8), to scores, shape (batch, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * channels * 2 * 2, 10),
    )


def cross_entropy(scores: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """The loss as a sum over samples, and their number: the trainer divides by the whole batch's count."""
    return functional.cross_entropy(scores, labels, reduction="sum"), labels.numel()


@torch.no_grad()
def accuracy(scores: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Correct answers, and how many there could be."""
    return (scores.argmax(dim=1) == labels).sum(), labels.numel()
