"""Made-up models for the search: what they say hangs on the whole translation so far, by chance."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import torch
from scores import FLOOR, Scoring
from tokens import BOS, EOS, PAD
from torch import Tensor

VOCABULARY = 6
"""Four tokens that may come, EOS among them: PAD and BOS never do."""
WORDS = [token for token in range(VOCABULARY) if token not in (PAD, BOS, EOS)]


class Toy:
    """One row a sentence. Next tokens and attention are random functions of (seed, source length, prefix)."""

    def __init__(self, seed: int, source_lengths: list[int]) -> None:
        self.seed, self.width = seed, max(source_lengths)
        self.rows: list[tuple[int, tuple[int, ...]]] = [(length, ()) for length in source_lengths]

    @property
    def is_token(self) -> Tensor:
        return torch.tensor([[i < length for i in range(self.width)] for length, _ in self.rows])

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.rows = [
            (length, (*prefix, token)) for (length, prefix), token in zip(self.rows, tokens.tolist(), strict=True)
        ]
        told = [self.told(length, prefix) for length, prefix in self.rows]
        attention = [[*given, *[0.0] * (self.width - len(given))] for _, given in told]
        logs = torch.tensor([logs for logs, _ in told], dtype=torch.float64)
        return logs, torch.tensor(attention, dtype=torch.float64)

    def select(self, rows: Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def told(self, length: int, prefix: tuple[int, ...]) -> tuple[list[float], list[float]]:
        """Log-probabilities of the token after `prefix`, and the attention to each of `length` source tokens."""
        return _told(self.seed, length, prefix)


@cache
def _told(seed: int, length: int, prefix: tuple[int, ...]) -> tuple[list[float], list[float]]:
    generator = torch.Generator().manual_seed(hash((seed, length, *prefix)) % 2**31)
    logits = 2 * torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)
    attention = (2 * torch.randn(length, generator=generator, dtype=torch.float64)).softmax(0)
    return logits.log_softmax(0).tolist(), attention.tolist()


def every_translation(toy: Toy, length: int, most_tokens: int, scoring: Scoring) -> list[tuple[float, list[int]]]:
    """(score, tokens) of all that end within `most_tokens`, computed one by one from the formulas; best first."""
    found = []
    for number in range(most_tokens):
        for tokens in product(WORDS, repeat=number):
            log_probability, covered = 0.0, [FLOOR] * length
            for place, token in enumerate((*tokens, EOS)):
                logs, attention = toy.told(length, (BOS, *tokens[:place]))
                covered = [sum(pair) for pair in zip(covered, attention, strict=True)]
                weight = scoring.gamma * length / (number + 1) if token == EOS and scoring.gamma else 1.0
                log_probability += weight * logs[token]
            lengths = {
                "none": 1.0,
                "power": (number + 1.0) ** scoring.alpha,
                "gnmt": ((6 + number) / 6) ** scoring.alpha,
            }
            coverage = scoring.beta * sum(math.log(min(one, 1.0)) for one in covered)
            found.append((log_probability / lengths[scoring.length] + coverage, list(tokens)))
    return sorted(found, reverse=True)
