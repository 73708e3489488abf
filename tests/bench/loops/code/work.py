"""The work that all loops share, as plain PyTorch code: a small network on made-up points.

Every loop computes its loss here once a step, and so passes a gate: after each turn of steps it says how long that
took and waits to be let through again. So loops that are measured against each other run in turns, each alone.
"""

import os
import sys
import time

import torch
from torch.nn import functional
from torch.utils.data import Dataset

NUM_FEATURES, NUM_CLASSES = 64, 10
STEPS_PER_TURN = int(os.environ.get("STEPS_PER_TURN", "0"))


class Gate:
    """Lets STEPS_PER_TURN steps through, prints the seconds they took, and waits for a line on standard input."""

    def __init__(self):
        self.steps_left = 2
        self.began_at = 0.0

    def __call__(self):
        self.steps_left -= 1
        if self.steps_left == 0:
            sys.stdout.write(f"turn {time.perf_counter() - self.began_at}\n")
            sys.stdout.flush()
            sys.stdin.readline()
            self.steps_left, self.began_at = STEPS_PER_TURN, time.perf_counter()


gate = Gate()


class Points(Dataset):
    """Items (features, class), made up from a seed."""

    def __init__(self, size=8192):
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(size, NUM_FEATURES, generator=generator)
        self.classes = torch.randint(0, NUM_CLASSES, (size,), generator=generator)

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        return self.features[index], self.classes[index]


def network(width):
    return torch.nn.Sequential(
        torch.nn.Linear(NUM_FEATURES, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, NUM_CLASSES),
    )


def mean_loss(outputs, targets):
    """What a loop written by hand calls."""
    gate()
    return functional.cross_entropy(outputs, targets)


def sum_loss(outputs, targets):
    """What a recipe names."""
    gate()
    return functional.cross_entropy(outputs, targets, reduction="sum"), len(targets)


def optimizer_of(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
