"""How good a translation is held to be: its log-probability, its length, and how much of the source it covers.

Y is the translation with its EOS, X the source with its EOS, p_ij how much attention token j of Y gave to token i of X.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FLOOR = 1e-4
"""What each source token has been attended to before the first step: so that there is no log 0."""


@dataclass(frozen=True)
class Scoring:
    """score(Y, X) = log P(Y | X) / length_penalty(|Y|) + coverage_penalty(X, Y); all off as it stands.

    length `power`: |Y|^alpha; `gnmt`: ((5 + |Y|) / 6)^alpha. Coverage: beta * sum_i log(min(sum_j p_ij, 1)).
    gamma: in P, log P(EOS) is multiplied by gamma * |X| / |Y|, so that an early end is dear; 0 is off.
    Source: Wu et al. 2016 (arXiv:1609.08144), section 7; gamma as the code of OpenNMT (Lua) has it, not its document.
    Raises ValueError, in one line, for what makes no sense.
    """

    length: Literal["none", "power", "gnmt"] = "none"
    alpha: float = 0.0
    beta: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: write a number from 0 on")
        if self.length not in ("none", "power", "gnmt"):
            raise ValueError(f"length is {self.length!r}: write none, power or gnmt")
        if self.alpha and self.length == "none":
            raise ValueError(f"alpha is {self.alpha}, and lengths do not count: write length power or gnmt")

    def length_penalty(self, length: int) -> float:
        """What log-probabilities of `length` tokens, EOS among them, are divided by."""
        base = {"none": 1.0, "power": float(length), "gnmt": (5 + length) / 6}[self.length]
        return base**self.alpha

    def coverage_penalty(self, attention: Tensor, is_token: Tensor) -> Tensor:
        """(rows,) of the attention so far and of where there are tokens, both (rows, S): padding counts nothing."""
        covered = (attention + FLOOR).clamp(max=1.0).log()
        return self.beta * torch.where(is_token, covered, 0.0).sum(dim=-1)

    def end_weight(self, source_length: Tensor, length: int) -> Tensor | float:
        """What log P(EOS) is multiplied by, (rows,), where the translation has `length` tokens with it."""
        return self.gamma * source_length / length if self.gamma else 1.0

    def score(self, log_probability: float, length: int, coverage: float) -> float:
        return log_probability / self.length_penalty(length) + coverage

    def best_reachable(self, log_probability: float, length: int, most_length: int) -> float:
        """No translation that goes on from `length` tokens to `most_length` at most can have a better score.

        Log-probabilities only fall, the penalty of the greatest length divides by most, and coverage is 0 at best.
        """
        return log_probability / self.length_penalty(most_length)
