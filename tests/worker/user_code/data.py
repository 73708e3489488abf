"""Made-up data that depends on its arguments alone."""

import os
import random
import time

import numpy as np
import torch
from layers import NUM_FEATURES
from torch.utils.data import Dataset, IterableDataset

from orchestrator.worker.randomness import sample_generator

DELAY_S = float(os.environ.get("DELAY_S", "0"))


class Points(Dataset):
    """Items (features, class)."""

    def __init__(self, size, seed=0, bad=None, noise=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(size, NUM_FEATURES, generator=generator)
        self.classes = (self.features[:, :3].argmax(dim=1) + (self.features[:, 3] > 0)) % 3
        self.bad, self.noise = bad, noise

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        time.sleep(DELAY_S)
        if self.bad is not None and index == self.bad:
            raise ValueError("this one is torn")
        return self.features[index] + self.noise * torch.randn(NUM_FEATURES), self.classes[index]


class Poisoned(Points):
    def __getitem__(self, index):
        features, label = super().__getitem__(index)
        return features * float("nan"), label


class OneTorn(Points):
    """One of its samples is no number."""

    def __getitem__(self, index):
        features, label = super().__getitem__(index)
        return (features * float("nan") if index == 5 else features), label


class Sentences(Dataset):
    """Items (tokens, next tokens) of different lengths; collated to a dict and targets, -1 where nothing counts."""

    def __init__(self, size, first_counts=True):
        generator = torch.Generator().manual_seed(5)
        self.lengths = torch.randint(1, 9, (size,), generator=generator)
        self.tokens = torch.randint(0, 7, (size, 10), generator=generator)
        self.first_counts = first_counts

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        tokens = self.tokens[index, : self.lengths[index] + 1]
        return tokens[:-1], tokens[1:]

    def collate_fn(self, items):
        pad = torch.nn.utils.rnn.pad_sequence
        tokens = pad([item[0] for item in items], batch_first=True, padding_value=0)
        targets = pad([item[1] for item in items], batch_first=True, padding_value=-1)
        if not self.first_counts:
            targets = torch.full_like(targets, -1)
        return {"tokens": tokens, "mask": targets >= 0}, targets


def count_tokens(targets):
    return int((targets >= 0).sum())


def not_a_dataset():
    return 3


class Stream(IterableDataset):
    """The points in their own order; a pass that is set shifts them, and each has noise of its own."""

    def __init__(self, size, ends_after=None, noise=0.0):
        self.points, self.ends_after, self.noise, self.shift = Points(size, seed=9), ends_after, noise, 0

    def set_epoch(self, number):
        self.shift = number

    def __iter__(self):
        for index in range(len(self.points) if self.ends_after is None else self.ends_after):
            features, label = self.points[index]
            yield features + self.shift + self.noise * torch.randn(NUM_FEATURES), label


class Batches(Points):
    """Fetches whole micro-batches; where it draws, from the generators of its samples or from torch's own."""

    def __init__(self, size, draws="sample", **args):
        super().__init__(size, **args)
        self.draws, self.calls = draws, []

    def __getitems__(self, indices):
        self.calls.append(indices)
        return [self.item(index) for index in indices]

    def item(self, index):
        if index == self.bad:
            raise ValueError("this one is torn")
        generator = sample_generator("torch", index) if self.draws == "sample" else None
        return self.features[index] + torch.randn(NUM_FEATURES, generator=generator), self.classes[index]


class Augmented(Points):
    """Draws from every kind of generator that there is."""

    def __getitem__(self, index):
        features, label = super().__getitem__(index)
        drawn = [random.random(), np.random.rand(), sample_generator("numpy").random()]
        drawn += [sample_generator("python").random(), torch.rand(()).item()]
        return features.double() + sum(drawn), label


class Torn(Points):
    """Every `each`-th sample raises."""

    def __init__(self, size, each):
        super().__init__(size)
        self.each = each

    def __getitem__(self, index):
        if index % self.each == 0:
            raise ValueError("this one is torn")
        return super().__getitem__(index)


class OfRank(Points):
    """Another file on another node."""

    def __init__(self, size):
        super().__init__(size, seed=int(os.environ.get("RANK", "0")) // 2)


class Unseeded(Points):
    """Draws from what nobody seeds."""

    def __getitem__(self, index):
        features, label = super().__getitem__(index)
        return features + np.random.default_rng().random(), label
