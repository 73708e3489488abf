"""Pairs of sentences as a dataset: token ids, padded to the longest of a micro-batch."""

from pathlib import Path

import torch
from text import Text, prepared
from tokens import BOS, EOS, PAD
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

Item = tuple[tuple[Tensor, Tensor], Tensor]


class Pairs(Dataset[Item]):
    """Items ((source, target before each token), target): ids of shape (source length,), (target length,) twice.

    The source ends with EOS. The model is given BOS and all but the last token of the target, and is to say the target,
    which ends with EOS.
    """

    def __init__(self, corpus: str, part: str, reverse: bool = False, folder: str = "") -> None:
        where = Path(folder) if folder else prepared()
        text = Text(where / "tokenizer.json")
        rows = [line.split("\t") for line in (where / f"{corpus}.{part}.tsv").read_text().splitlines()]
        english, other = ([row[column] for row in rows] for column in (0, 1))
        self.sources, self.targets = (other, english) if reverse else (english, other)
        self.source_ids = text.ids(self.sources)
        self.target_ids = text.ids(self.targets)
        self.lengths = [len(ids) for ids in self.target_ids]
        """For `loader.group_by_length`."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Item:
        source, target = self.source_ids[index], self.target_ids[index]
        ids = torch.tensor([BOS, *target, EOS])
        return (torch.tensor([*source, EOS]), ids[:-1]), ids[1:]

    @staticmethod
    def collate_fn(items: list[Item]) -> Item:
        """The same, each of shape (batch, longest of the batch)."""
        inputs, targets = zip(*items, strict=True)
        sources, befores = (padded(each) for each in zip(*inputs, strict=True))
        return (sources, befores), padded(targets)


def padded(sequences: tuple[Tensor, ...]) -> Tensor:
    """Sequences of ids as rows, PAD behind the shorter ones."""
    return pad_sequence(list(sequences), batch_first=True, padding_value=PAD)
