"""Decoding with and without what is kept of the tokens before, side by side: for recipes/translation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from decode import Hypothesis, Search, beam_search
from model import Transformer
from tokens import PAD
from torch import Tensor


@dataclass
class Recomputing:
    """The decoder without anything kept: the model is called on all that came before each token."""

    model: Transformer
    memory: Tensor
    mask: Tensor
    prefix: Tensor

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.prefix = torch.cat((self.prefix, tokens[:, None]), dim=1)
        x = self.model.embed(self.prefix)
        for layer in self.model.decoder:
            source = layer.cross.keys_and_values(self.memory)
            x, asked = layer(x, None, source, self.mask)
        attention = layer.cross.weights(asked, source, self.mask)
        return self.model.logits(x)[:, -1].log_softmax(-1), attention[:, -1]

    def select(self, rows: Tensor) -> None:
        self.memory, self.mask, self.prefix = self.memory[rows], self.mask[rows], self.prefix[rows]


@dataclass
class Anew:
    """The model as training calls it, for each token: nothing is kept, of the source neither."""

    model: Transformer

    @property
    def max_positions(self) -> int:
        return self.model.max_positions

    @property
    def embedding(self) -> torch.nn.Embedding:
        return self.model.embedding

    def start(self, source: Tensor) -> AnewSteps:
        return AnewSteps(self.model, source, source[:, :0])


@dataclass
class AnewSteps:
    model: Transformer
    source: Tensor
    prefix: Tensor

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.prefix = torch.cat((self.prefix, tokens[:, None]), dim=1)
        logits = self.model(self.source, self.prefix)[:, -1]
        return logits.log_softmax(-1), torch.zeros(self.source.shape)  # attention is for coverage alone

    def select(self, rows: Tensor) -> None:
        self.source, self.prefix = self.source[rows], self.prefix[rows]


@torch.no_grad()
def timed(model: Transformer, source: Tensor, most_tokens: int, *, keeps: bool) -> tuple[float, list[list[Hypothesis]]]:
    """Seconds for all sentences, greedily."""
    began = time.perf_counter()
    memory, mask = model.encode(source)
    steps: Any = model.start(source) if keeps else Recomputing(model, memory, mask, source[:, :0])
    found = beam_search(steps, source != PAD, [most_tokens] * len(source), Search(1))
    return time.perf_counter() - began, found
