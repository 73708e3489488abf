"""Made-up points; some of them not the same on every rank."""

import os

import torch
from torch.utils.data import Dataset


class Points(Dataset):
    """Items (features, class); `noise` comes from torch's generator, which the loop seeds by sample."""

    def __init__(self, size, noise=0.1):
        generator = torch.Generator().manual_seed(3)
        self.features = torch.randn(size, 6, generator=generator)
        self.classes = (self.features[:, 0] > 0).long() + (self.features[:, 1] > 0).long()
        self.noise = noise

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        return self.features[index] + self.noise * torch.randn(6), self.classes[index]


class RankPoints(Points):
    """Augmented by rank."""

    def __getitem__(self, index):
        features, label = super().__getitem__(index)
        return features + 0.01 * int(os.environ["RANK"]), label


class TornPoints(Points):
    """One rank of two cannot read its samples."""

    def __getitem__(self, index):
        if os.environ["RANK"] == "1":
            raise OSError("the disk of this rank is gone")
        return super().__getitem__(index)
