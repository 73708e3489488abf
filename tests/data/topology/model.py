"""A small network, and the ways to break the contract that `verify-topology` is to find, one each."""

import os
import random

import torch
from torch import nn
from torch.nn import functional

NUM_FEATURES = 6


def network(middle=None):
    return nn.Sequential(nn.Linear(NUM_FEATURES, 16), nn.Tanh(), middle or nn.Identity(), nn.Linear(16, 3))


def with_dropout(p=0.1):
    return network(nn.Dropout(p))


def with_batch_norm():
    return network(nn.BatchNorm1d(16))


def with_rank_dropout():
    return network(RankDropout())


def with_reseeded_dropout():
    return network(ReseededDropout())


def with_python_noise():
    return network(PythonNoise())


def with_batch_mean():
    return network(BatchMean())


def with_world_size():
    return network(WorldScaled())


def with_wrong_backward():
    return network(WrongBackward())


class RankDropout(nn.Module):
    """Dropout from a generator of its own, seeded by the rank: no two ranks mask alike."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(int(os.environ["RANK"]))

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand(x.shape, generator=self.generator) > 0.1) / 0.9


class ReseededDropout(nn.Dropout):
    """torch's dropout after seeding torch by the rank."""

    def forward(self, x):
        torch.manual_seed(torch.distributed.get_rank())
        return super().forward(x)


class PythonNoise(nn.Module):
    def forward(self, x):
        return x * (1 + 0.1 * random.random())


class BatchMean(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0)


class WorldScaled(nn.Module):
    def forward(self, x):
        return x * torch.distributed.get_world_size()


class MeanBackward(torch.autograd.Function):
    """Gives its input on, and to its gradient what a mean would give."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / len(gradient)


class WrongBackward(nn.Module):
    def forward(self, x):
        return MeanBackward.apply(x)


class Recurrent(nn.Module):
    """Works with time first, so that its dropout cannot be told by sample."""

    def __init__(self):
        super().__init__()
        self.inner, self.dropout, self.output = nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 3)

    def forward(self, x):
        return self.output(self.dropout(torch.tanh(self.inner(x.T.unsqueeze(-1)))).mean(dim=0))


class Attention(nn.Module):
    """Dropout in attention, in a recomputed block, of whole features; and a layer left out by chance."""

    def __init__(self):
        super().__init__()
        self.embed, self.features, self.output = nn.Linear(1, 8), nn.Dropout1d(0.2), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.2, batch_first=True) for _ in range(2)
        )

    def forward(self, x):
        x = self.embed(x.unsqueeze(-1))
        for block in self.blocks:
            kept = not self.training or torch.rand(()) > 0.2
            x = x + kept * block(x)
        return self.output(self.features(x).mean(dim=1))


def cross_entropy(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="sum"), len(targets)


def mean_of_means(outputs, targets):
    """The classic mistake: each micro-batch's own mean, however many samples it has."""
    return functional.cross_entropy(outputs, targets) * 4, len(targets)


def shared_by_ranks(outputs, targets):
    """Another classic: divided by the world once more."""
    return cross_entropy(outputs, targets)[0] / torch.distributed.get_world_size(), len(targets)


CALLS = []


def growing(outputs, targets):
    """Weighs each call more than the one before."""
    CALLS.append(1)
    return cross_entropy(outputs, targets)[0] * len(CALLS), len(targets)
