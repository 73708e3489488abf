"""Texts and their sections as a dataset: the ids of a staged tokenizer, padded to the longest text of a micro-batch."""

import os
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import AutoTokenizer

Item = tuple[Tensor, int]
Batch = tuple[tuple[Tensor, Tensor], Tensor]


class Texts(Dataset[Item]):
    """Items (ids, section): ids of shape (length,), with the tokenizer's own first and last one; a number from 0 on.

    `part` is train or held_out. Tokens beyond `most_tokens` are cut off.
    """

    def __init__(self, part: str, most_tokens: int = 32) -> None:
        tokenizer = AutoTokenizer.from_pretrained(os.environ["ORCHESTRATE_ASSET_TOKENIZER"])
        prepared = Path(os.environ["ORCHESTRATE_ASSET_TEXTS"])
        sections = (prepared / "sections.txt").read_text().split()
        rows = [line.split("\t") for line in (prepared / f"{part}.tsv").read_text().splitlines()]
        self.texts = [text for _, text in rows]
        self.labels = [sections.index(section) for section, _ in rows]
        self.ids: list[list[int]] = tokenizer(self.texts, truncation=True, max_length=most_tokens)["input_ids"]
        self.lengths = [len(ids) for ids in self.ids]
        """For `loader.group_by_length`."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        return torch.tensor(self.ids[index]), self.labels[index]

    @staticmethod
    def collate_fn(items: list[Item]) -> Batch:
        """((ids, mask), sections): (batch, longest of the batch) twice, and (batch,). The mask is 1 at tokens."""
        ids, labels = zip(*items, strict=True)
        masks = [torch.ones_like(row) for row in ids]
        return (pad_sequence(ids, batch_first=True), pad_sequence(masks, batch_first=True)), torch.tensor(labels)
