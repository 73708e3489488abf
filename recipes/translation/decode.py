"""Greedy and beam search over anything that gives the next token's log-probabilities, many sentences at once.

Sentences that are done leave the batch. Of each, twice as many candidates as the beam is wide are looked at, so that
ends never empty it; an end counts where it is among the best of these, as many as the beam is wide. Candidates are
compared by log-probability; finished translations by their score (scores.py).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from scores import Scoring
from tokens import BOS, EOS, PAD
from torch import Tensor, nn

WIDE = 10
"""Beams wider than this find ever shorter translations, where nothing is said about lengths (Yang et al. 2018)."""


class Steps(Protocol):
    """Rows of a batch, on their way from token to token; such as a model's `start(source)`."""

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """After `tokens`, (rows,): log-probabilities, (rows, V), and attention to the source, (rows, S)."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; one may come several times."""


@dataclass(frozen=True)
class Hypothesis:
    """One translation."""

    tokens: list[int]
    """Without BOS and EOS."""
    score: float
    log_probability: float
    """What the model gives it, EOS included."""
    finished: bool = True
    """Whether it ends, or was cut off where it might have gone on."""


@dataclass(frozen=True)
class Live:
    """One translation that has not ended, as `watch` sees it."""

    tokens: list[int]
    log_probability: float


Watch = Callable[[int, list[Live], list[Hypothesis]], None]
"""Called for each sentence (its number) after each token: what lives, best first, and what has ended."""


@dataclass(frozen=True)
class Search:
    """How to search. Raises ValueError, in one line, for what makes no sense.

    stop: `first`, when a translation has ended; `beam`, when as many have as the beam is wide; `bound`, when nothing
    that lives could still become better than the `best` ones that have ended, which is exact.
    """

    beam: int = 4
    scoring: Scoring = field(default_factory=Scoring)
    stop: Literal["first", "beam", "bound"] = "bound"
    best: int = 1
    """How many translations are wanted."""
    most_tokens: Callable[[int], int] = lambda source_length: 2 * source_length + 10
    """Of a source of so many tokens, EOS included, how many a translation has at most, EOS included."""
    never: tuple[int, ...] = (PAD, BOS)
    """Tokens that no translation holds."""

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"a beam of {self.beam}: write 1 (greedy), or more")
        if not 1 <= self.best <= self.beam:
            raise ValueError(f"{self.best} translations of a beam of {self.beam}: write a wider beam")
        if self.beam > WIDE and not (self.scoring.alpha or self.scoring.beta or self.scoring.gamma):
            what = f"a beam of {self.beam} without length normalisation finds translations that are too short"
            warnings.warn(what, stacklevel=3)


@torch.no_grad()
def translate(
    model: nn.Module, source: Tensor, search: Search | None = None, watch: Watch | None = None
) -> list[list[Hypothesis]]:
    """The best translations of each row of `source`, (B, S) with EOS and padding; best first. Call it in eval mode."""
    search = search or Search()
    lengths = (source != PAD).sum(dim=1)
    most = [min(search.most_tokens(int(length)), model.max_positions) for length in lengths]
    return beam_search(model.start(source), source != PAD, most, search, watch)


def greedy(model: nn.Module, source: Tensor) -> list[Hypothesis]:
    """The likeliest token, again and again: a beam of 1."""
    return [found[0] for found in translate(model, source, Search(beam=1))]


def beam_search(
    steps: Steps, is_token: Tensor, most_tokens: Sequence[int], search: Search, watch: Watch | None = None
) -> list[list[Hypothesis]]:
    """The best translations of each of B sentences, best first.

    `steps` has one row a sentence; `is_token`, (B, S), is True where a source has a token; `most_tokens` says of each
    how long a translation may be, EOS included.
    """
    beams = _Beams(steps, is_token, most_tokens, search, watch)
    while beams.sentences:
        beams.step()
    return beams.results()


class _Beams:
    """The beams of all sentences that are not done: as many rows of `steps` for each as the beam is wide.

    A row whose log-probability is -inf is none: at first there is one for each sentence.
    """

    def __init__(
        self, steps: Steps, is_token: Tensor, most_tokens: Sequence[int], search: Search, watch: Watch | None
    ) -> None:
        self.steps, self.search, self.watch, self.most_tokens = steps, search, watch, most_tokens
        self.sentences = list(range(len(is_token)))
        """Those that are not done, by their numbers in the batch."""
        self.finished: list[list[Hypothesis]] = [[] for _ in self.sentences]
        self.unfinished: list[list[Hypothesis]] = [[] for _ in self.sentences]
        rows = torch.arange(len(is_token), device=is_token.device).repeat_interleave(search.beam)
        steps.select(rows)
        self.is_token = is_token[rows]
        self.tokens = torch.full((len(rows), 1), BOS, device=is_token.device)
        self.attention: Tensor | None = None
        self.log_probability = torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=is_token.device)
        self.log_probability[:: search.beam] = 0.0

    @property
    def length(self) -> int:
        """Tokens of every live translation, without BOS."""
        return self.tokens.shape[1] - 1

    def step(self) -> None:
        """One token more for every live translation."""
        told, attention = self.steps.step(self.tokens[:, -1])
        told = told.index_fill(1, torch.tensor(self.search.never, dtype=torch.int64, device=told.device), -torch.inf)
        attention = attention if self.attention is None else self.attention + attention
        ends = self.log_probability + told[:, EOS].double()
        told[:, EOS] *= self.search.scoring.end_weight(self.is_token.sum(dim=1).to(told), self.length + 1)
        coverage = self.search.scoring.coverage_penalty(attention, self.is_token)
        self._advance(self._best_candidates(told), ends.tolist(), coverage.tolist(), attention)

    def _best_candidates(self, told: Tensor) -> "list[list[_Candidate]]":
        """Of each sentence, twice as many as the beam is wide, best first: of each row, no more than that can be."""
        size, number = self.search.beam, min(2 * self.search.beam, told.shape[1])
        of_rows = told.topk(number, dim=1)
        sums = (self.log_probability[:, None] + of_rows.values.double()).view(len(self.sentences), -1)
        best = sums.topk(min(2 * size, sums.shape[1]), dim=1)
        first = torch.arange(len(self.sentences), device=told.device)[:, None] * size
        rows = first + best.indices // number
        tokens = of_rows.indices[rows, best.indices % number]
        columns = (rows.tolist(), tokens.tolist(), best.values.tolist())
        return [[_Candidate(*one) for one in zip(*found, strict=True)] for found in zip(*columns, strict=True)]

    def _advance(
        self, candidates: "list[list[_Candidate]]", ends: list[float], coverage: list[float], attention: Tensor
    ) -> None:
        """Sort the candidates of each sentence into those that have ended and those that live on, as its next rows.

        `ends` has of each row the log-probability that it ends here.
        """
        size, length = self.search.beam, self.length + 1
        still: list[int] = []
        chosen: list[_Candidate] = []
        for place, sentence in enumerate(self.sentences):
            possible = [one for one in candidates[place] if one.log_probability > -torch.inf]
            live = [one for one in possible if one.token != EOS][:size]
            for one in possible[:size]:
                if one.token == EOS:
                    score = self.search.scoring.score(one.log_probability, length, coverage[one.row])
                    ended = Hypothesis(self.tokens[one.row, 1:].tolist(), score, ends[one.row])
                    self.finished[sentence].append(ended)
            self._keep_the_best(sentence)
            if self.watch is not None:
                self._show(sentence, live)
            if length >= self.most_tokens[sentence]:
                self._cut(sentence, live, coverage)
            elif live and not self._is_done(sentence, live[0].log_probability):
                still.append(sentence)
                chosen += live + [_Candidate(place * size, PAD, -torch.inf)] * (size - len(live))
        self._go_on(still, chosen, attention)

    def _go_on(self, sentences: list[int], chosen: "list[_Candidate]", attention: Tensor) -> None:
        self.sentences = sentences
        if not sentences:
            return
        device = self.is_token.device
        rows = torch.tensor([candidate.row for candidate in chosen], device=device)
        tokens = torch.tensor([candidate.token for candidate in chosen], device=device)
        self.log_probability = torch.tensor(
            [candidate.log_probability for candidate in chosen], dtype=torch.float64, device=device
        )
        self.tokens = torch.cat((self.tokens[rows], tokens[:, None]), dim=1)
        self.is_token, self.attention = self.is_token[rows], attention[rows]
        if not torch.equal(rows, torch.arange(len(attention), device=device)):  # to copy what is kept takes time
            self.steps.select(rows)

    def _is_done(self, sentence: int, best_live: float) -> bool:
        finished, search = self.finished[sentence], self.search
        if search.stop == "first" or search.beam == 1:
            return bool(finished)
        if search.stop == "beam":
            return len(finished) == search.beam
        reachable = search.scoring.best_reachable(best_live, self.length + 1, self.most_tokens[sentence])
        return len(finished) >= search.best and finished[search.best - 1].score >= reachable

    def _cut(self, sentence: int, live: "list[_Candidate]", coverage: list[float]) -> None:
        """What has not ended where nothing may be longer stands behind what has."""
        for candidate in live:
            score = self.search.scoring.score(candidate.log_probability, self.length + 1, coverage[candidate.row])
            tokens = [*self.tokens[candidate.row, 1:].tolist(), candidate.token]
            self.unfinished[sentence].append(Hypothesis(tokens, score, candidate.log_probability, finished=False))

    def _keep_the_best(self, sentence: int) -> None:
        self.finished[sentence].sort(key=lambda found: -found.score)
        del self.finished[sentence][self.search.beam :]

    def _show(self, sentence: int, live: "list[_Candidate]") -> None:
        assert self.watch is not None, "somebody looks on"
        tokens = [[*self.tokens[candidate.row, 1:].tolist(), candidate.token] for candidate in live]
        lives = [Live(*shown) for shown in zip(tokens, (candidate.log_probability for candidate in live), strict=True)]
        self.watch(sentence, lives, list(self.finished[sentence]))

    def results(self) -> list[list[Hypothesis]]:
        """Of each sentence, as many as are wanted."""
        both = zip(self.finished, self.unfinished, strict=True)
        return [[*finished, *sorted(cut, key=lambda one: -one.score)][: self.search.best] for finished, cut in both]


@dataclass(frozen=True)
class _Candidate:
    """A live translation with one token more: the row that it was, the token, and the log-probability of both."""

    row: int
    token: int
    log_probability: float
