"""The search: exact where it says so, greedy where the beam is 1, and blind to the batch that a sentence is in."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from decode import Hypothesis, Live, Search, beam_search, greedy, translate
from hypothesis import given
from hypothesis import strategies as st
from model import transformer
from scores import Scoring
from tokens import BOS, EOS, PAD

from tests.recipes.translation.toys import Toy, every_translation

MOST_TOKENS = 5
EVERYTHING = 324
"""A beam in which nothing is lost: every prefix of three words, with every next token."""
SCORINGS = (
    Scoring(),
    Scoring("power", 0.6),
    Scoring("gnmt", 0.6),
    Scoring("gnmt", 1.0),
    Scoring("gnmt", 0.6, beta=0.2),
    Scoring(beta=0.4),
    Scoring(gamma=0.8),
    Scoring("gnmt", 0.6, beta=0.2, gamma=0.5),
)


@pytest.fixture(autouse=True)
def wide_beams_are_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a beam of 324")
        yield


def found_in(seed: int, search: Search) -> Hypothesis | None:
    toy = Toy(seed, [2 + seed % 3])
    return next(iter(beam_search(toy, toy.is_token, [MOST_TOKENS], search)[0]), None)


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_the_exact_bound_finds_the_best_of_all_translations_and_the_first_end_does_not(scoring: Scoring) -> None:
    """Of 200 random models, in a beam that loses nothing: what the rule stops at is the optimum, in all of them."""
    exact = first = 0
    for seed in range(200):
        score, tokens = every_translation(Toy(seed, [2 + seed % 3]), 2 + seed % 3, MOST_TOKENS, scoring)[0]
        best = found_in(seed, Search(EVERYTHING, scoring))
        exact += best is not None and best.tokens == tokens and best.score == pytest.approx(score, rel=1e-12)
        early = found_in(seed, Search(4, scoring, stop="first"))
        first += early is not None and early.tokens == tokens
    assert exact == 200 > first


def test_a_beam_of_four_loses_the_best_seldom_and_stopping_at_four_ends_more_often() -> None:
    scoring = Scoring("power", 0.6)
    best = [
        every_translation(Toy(seed, [2 + seed % 3]), 2 + seed % 3, MOST_TOKENS, scoring)[0][1] for seed in range(200)
    ]
    by_rule = {}
    for stop in ("bound", "beam", "first"):
        found = [found_in(seed, Search(4, scoring, stop=stop)) for seed in range(200)]
        by_rule[stop] = sum(one is not None and one.tokens == tokens for one, tokens in zip(found, best, strict=True))
    assert by_rule["bound"] >= 190 and by_rule["bound"] > by_rule["beam"] > by_rule["first"]


def test_a_wider_beam_finds_what_greedy_does_not() -> None:
    """The test vector of OpenNMT's BeamSearchTest.lua: log(0.4 * 0.9) beats log(0.6^3). Its tokens 1 to 4 are these."""
    first, second, third, fourth = BOS, 4, 3, EOS
    after = {
        first: {second: 0.6, third: 0.4},
        second: {first: 0.6, third: 0.4},
        third: {third: 0.1, fourth: 0.9},
    }

    class Table:
        def __init__(self) -> None:
            self.num_rows = 1

        def step(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows = [[after.get(token, {}).get(next_token, 0.0) for next_token in range(5)] for token in tokens.tolist()]
            return torch.tensor(rows, dtype=torch.float64).log(), torch.zeros(len(rows), 1, dtype=torch.float64)

        def select(self, rows: torch.Tensor) -> None:
            self.num_rows = len(rows)

    is_token = torch.ones(1, 1, dtype=torch.bool)
    (wide,), (narrow,) = (beam_search(Table(), is_token, [3], Search(beam, never=()))[0] for beam in (2, 1))
    assert wide.tokens == [third] and wide.finished and wide.score == pytest.approx(math.log(0.4 * 0.9), rel=1e-12)
    assert narrow.tokens == [second, first, second] and not narrow.finished
    assert narrow.score == pytest.approx(math.log(0.6**3), rel=1e-12)


def model(seed: int) -> torch.nn.Module:
    """Random, and eager to end."""
    torch.manual_seed(seed)
    made = transformer(20, width=16, heads=2, layers=1, feed_forward=32, dropout=0.0, max_positions=40).double().eval()
    for weight in made.parameters():
        weight.data *= 2.5
    return made


sentences = st.lists(st.lists(st.integers(4, 19), max_size=6), min_size=1, max_size=5)
scorings = st.sampled_from(SCORINGS)


def source_of(rows: list[list[int]], padding: int = 0) -> torch.Tensor:
    width = max(map(len, rows)) + 1 + padding
    return torch.tensor([[*row, EOS, *[PAD] * (width - len(row) - 1)] for row in rows])


@given(rows=sentences, seed=st.integers(0, 30), scoring=scorings, beam=st.integers(1, 5), padding=st.integers(0, 4))
def test_neither_the_batch_nor_padding_changes_a_translation_or_its_score(
    rows: list[list[int]], seed: int, scoring: Scoring, beam: int, padding: int
) -> None:
    search = Search(beam, scoring, best=min(2, beam))
    together = translate(model(seed), source_of(rows, padding), search)
    for row, found in zip(rows, together, strict=True):
        alone = translate(model(seed), source_of([row]), search)[0]
        assert [(one.tokens, one.finished) for one in found] == [(one.tokens, one.finished) for one in alone]
        assert [one.score for one in found] == pytest.approx([one.score for one in alone], rel=1e-9)


@given(rows=sentences, seed=st.integers(0, 30), scoring=scorings)
def test_a_beam_of_one_is_greedy(rows: list[list[int]], seed: int, scoring: Scoring) -> None:
    """By hand: the likeliest token each time, an end weighed by gamma."""
    made, source = model(seed), source_of(rows)
    found = [one[0] for one in translate(made, source, Search(1, scoring))]
    for row, one in zip(rows, found, strict=True):
        steps, token, tokens = made.start(source_of([row])), BOS, []
        while len(tokens) < 2 * (len(row) + 1) + 10:
            told = steps.step(torch.tensor([token]))[0][0]
            told[[PAD, BOS]] = -torch.inf
            told[EOS] *= scoring.end_weight(torch.tensor(len(row) + 1.0).double(), len(tokens) + 1)
            token = int(told.argmax())
            if token == EOS:
                break
            tokens.append(token)
        assert (one.tokens, one.finished) == (tokens, token == EOS)


@given(rows=sentences, seed=st.integers(0, 30), scoring=scorings, beam=st.integers(1, 5))
def test_the_log_probability_is_the_models_and_with_all_penalties_off_the_score_too(
    rows: list[list[int]], seed: int, scoring: Scoring, beam: int
) -> None:
    made = model(seed)
    for row, found in zip(rows, translate(made, source_of(rows), Search(beam, scoring, best=beam)), strict=True):
        for one in found:
            assert scoring != Scoring() or one.score == pytest.approx(one.log_probability, rel=1e-12)
            ids = torch.tensor([[BOS, *one.tokens]])
            told = made(source_of([row]), ids).log_softmax(-1)[0]
            wanted = [*one.tokens, *([EOS] if one.finished else [])]
            whole = sum(told[place, token].item() for place, token in enumerate(wanted))
            assert one.log_probability == pytest.approx(whole, rel=1e-9)


def test_several_translations_come_best_first_and_each_once() -> None:
    found = translate(model(3), source_of([[4, 5, 6], [7]]), Search(5, Scoring("gnmt", 0.6), best=5))
    for one in found:
        scores = [each.score for each in one if each.finished]
        assert scores == sorted(scores, reverse=True) and len({tuple(each.tokens) for each in one}) == len(one) == 5


def test_no_translation_is_longer_than_it_may_be_or_than_the_model_has_positions() -> None:
    made = model(0)
    found = translate(made, source_of([[4] * 30]), Search(2, most_tokens=lambda length: 1000))[0][0]
    assert len(found.tokens) <= made.max_positions
    short = translate(made, source_of([[4] * 5, [4]]), Search(2, most_tokens=lambda length: length))
    assert [len(one[0].tokens) <= length for one, length in zip(short, (6, 2), strict=True)] == [True, True]


def test_who_looks_on_sees_beams_grow_by_a_token_at_a_time() -> None:
    seen: list[tuple[int, list[Live], list[Hypothesis]]] = []
    translate(model(3), source_of([[4, 5, 6]]), Search(3), watch=lambda *shown: seen.append(shown))
    assert [len(live[0].tokens) for _, live, _ in seen] == list(range(1, len(seen) + 1))
    assert all([one.log_probability for one in live] == sorted((o.log_probability for o in live), reverse=True)
               for _, live, _ in seen)  # fmt: skip


def test_greedy_translations_come_one_a_sentence() -> None:
    assert [one.tokens for one in greedy(model(3), source_of([[4, 5], [6]]))] == [
        one[0].tokens for one in translate(model(3), source_of([[4, 5], [6]]), Search(1))
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"beam": 0}, r"a beam of 0: write 1 \(greedy\), or more"),
        ({"beam": 2, "best": 3}, "3 translations of a beam of 2: write a wider beam"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="^" + told + "$"):
        Search(**wrong)


def test_a_wide_beam_without_a_word_about_lengths_is_warned_of() -> None:
    for scoring in (Scoring(), Scoring("gnmt", 0.0)):
        with pytest.warns(UserWarning, match="a beam of 11 without length normalisation finds translations that are"):
            Search(11, scoring)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Search(11, Scoring("gnmt", 0.6))
