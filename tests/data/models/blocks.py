"""Small networks of blocks: with dropout, batch norm and a list inside a block; and ones that are hard to simulate."""

import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, width, dropout, batch_norm, num_experts):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(num_experts))
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.dropout = dropout

    def forward(self, x, *, scale):
        y = sum(functional.gelu(expert(x)) for expert in self.experts)
        return x + scale * functional.dropout(self.norm(y), self.dropout, self.training)


class Blocks(nn.Module):
    def __init__(self, width=12, num_blocks=3, num_classes=3, dropout=0.0, batch_norm=False, num_experts=2):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, dropout, batch_norm, num_experts) for _ in range(num_blocks))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        x = images.flatten(1)
        for block in self.blocks:
            x = block(x, scale=0.5)
        return self.head(x)


def without_blocks(width=12):
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 3))


class Asking(Blocks):
    """Its constructor asks tensors for their values, as stochastic depth does."""

    def __init__(self, **args):
        super().__init__(**args)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
        self.register_buffer("table", torch.ones(7))


class Branching(Blocks):
    """What it computes depends on the data."""

    def forward(self, images):
        return super().forward(images) if images.sum() > 0 else self.head(images.flatten(1))


class Aborting(Blocks):
    """Takes its process along when it is called, as a kernel that meets a fake tensor may."""

    def forward(self, images):
        os.abort()


class Normed(Blocks):
    """Its batch norm refuses one sample alone, and every sample takes hundreds of mebibytes."""

    def __init__(self, num_features=20_000_000, broken_at=None, **args):
        super().__init__(batch_norm=True, **args)
        self.num_features, self.broken_at = num_features, broken_at

    def forward(self, images):
        if len(images) == self.broken_at:
            raise ValueError("broken")
        outputs = super().forward(images)
        features = outputs.new_zeros(len(outputs), self.num_features) + outputs.sum()
        return outputs + features.exp().mean()


class Refusing(Blocks):
    def forward(self, images):
        if torch.is_grad_enabled() and "forward" in vars(self.blocks[0]):
            raise ValueError("no recomputing here")
        return super().forward(images)


def killed_while_made():
    os.abort()


def hanging(pid_file=None):
    if pid_file is not None:
        Path(pid_file).write_text(str(os.getpid()))
    time.sleep(600)


def asking_loss(outputs, targets):
    """A count read as a number, as losses do that divide by it."""
    count = (targets >= 0).sum().item()
    return functional.cross_entropy(outputs, targets, reduction="sum"), count
