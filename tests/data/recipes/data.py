"""Two clouds of points in the plane, made from a seed."""

import time

import torch
from torch.utils.data import TensorDataset


def clouds(num_samples: int, seed: int) -> TensorDataset:
    """Items (point, label): a float32 tensor of shape (2,), and class 0 around (-2, -2) or class 1 around (2, 2)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % 2
    centres = (4.0 * labels - 2.0).unsqueeze(1)
    return TensorDataset(centres + 0.7 * torch.randn(num_samples, 2, generator=generator), labels)


class SlowClouds(TensorDataset):
    """The same clouds, each item some seconds in the making: a run that is long enough to be interrupted."""

    def __init__(self, num_samples: int, seed: int, pause_s: float) -> None:
        super().__init__(*clouds(num_samples, seed).tensors)
        self.pause_s = pause_s

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        time.sleep(self.pause_s)
        return super().__getitem__(index)
