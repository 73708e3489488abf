"""Handwritten digits: the 1,797 scanned images that come with scikit-learn, so nothing is downloaded."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Dataset

NUM_HELD_OUT = 360


class Digits(Dataset[tuple[Tensor, Tensor]]):
    """Items (image, label): fp32 of shape (1, 8, 8) with values 0 to 1, and an integer 0 to 9.

    `part` is train (1,437 images) or heldout (360). The split is always the same, and both parts hold the ten digits
    in the same proportions.
    """

    def __init__(self, part: str) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        labels = torch.tensor(digits.target, dtype=torch.int64)
        train, heldout = train_test_split(
            torch.arange(len(labels)), test_size=NUM_HELD_OUT, random_state=0, stratify=labels
        )
        chosen = {"train": train, "heldout": heldout}[part]
        self.images, self.labels = images[chosen], labels[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]
