"""Tokens by rules of thumb: exact arithmetic, the rule that fits the script, and an interval that holds."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.token_rules import (
    RULES,
    TextCounts,
    count_text,
    error_percent,
    estimated_tokens,
    ratio_estimate,
    total,
    trusted_rule,
)
from orchestrator.plan.tokens import CHARS_PER_TOKEN, tokens_in
from orchestrator.recipe.data import Dataset

ENGLISH = "The lamp in the harbour went out at four, and nobody noticed until the boats came home."
GERMAN = "Die Lampe am Hafen ging um vier Uhr aus, und niemand merkte es, bis die Boote heimkamen."
CHINESE = "港口的灯四点钟熄灭了,直到船只回来才有人发现。"
JAPANESE = "港の灯りは四時に消えたが、船が帰るまで誰も気づかなかった。"
KOREAN = "항구의 등불이 네 시에 꺼졌지만 배가 돌아올 때까지 아무도 몰랐다."
RUSSIAN = "Фонарь в гавани погас в четыре, и никто не заметил этого, пока лодки не вернулись."
GREEK = "Το φανάρι στο λιμάνι έσβησε στις τέσσερις και κανείς δεν το πρόσεξε."  # noqa: RUF001
ARABIC = "انطفأ مصباح الميناء عند الرابعة ولم يلاحظ أحد ذلك حتى عادت القوارب."


def test_counts_are_of_characters_words_and_bytes() -> None:
    counts = count_text("Zwölf Boote, 两 лодки")
    assert (counts.characters, counts.words, counts.bytes) == (20, 4, 28)
    assert (counts.letters, counts.latin, counts.cjk, counts.cyrillic) == (16, 10, 1, 5)
    assert estimated_tokens(counts) == {"chars/4": 5, "words/0.75": 6, "bytes/4": 7}


@given(st.lists(st.text()))
def test_counts_add_up_however_the_text_is_parted_between_words(texts: list[str]) -> None:
    assert total(map(count_text, texts)).words == count_text(" ".join(texts)).words
    whole, parts = count_text("".join(texts)), total(map(count_text, texts))
    assert (whole.characters, whole.bytes, whole.letters) == (parts.characters, parts.bytes, parts.letters)
    assert sum(whole.share(script) for script in ("latin", "cyrillic", "cjk", "other")) == pytest.approx(
        1.0 if whole.letters else 0.0
    )


@given(st.integers(1, 10**9))
def test_four_characters_are_a_token_here_and_in_a_plan(num_characters: int) -> None:
    declared = Dataset(name="a", target="data:a", num_samples=1, chars_per_sample=num_characters)
    assert estimated_tokens(TextCounts(characters=num_characters))["chars/4"] == tokens_in(declared)
    assert RULES[0] == f"chars/{CHARS_PER_TOKEN}"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (ENGLISH, "chars/4"),
        (GERMAN, "chars/4"),
        (RUSSIAN, "chars/4"),
        (CHINESE, "bytes/4"),
        (JAPANESE, "bytes/4"),
        (KOREAN, "bytes/4"),
        (ENGLISH + CHINESE, "bytes/4"),
        (ENGLISH * 9 + CHINESE, "chars/4"),
        (GREEK, None),
        (ARABIC, None),
        ("1 2 3", None),
    ],
)
def test_the_script_of_the_letters_decides_which_rule_to_trust(text: str, rule: str | None) -> None:
    trusted, why = trusted_rule(count_text(text))
    assert trusted == rule
    assert why and "\n" not in why


def test_the_error_of_a_rule_is_told_against_the_true_count() -> None:
    assert error_percent(75, 100) == -25.0
    assert error_percent(0, 0) == 0.0


def test_of_all_parts_the_total_is_exact_and_of_one_part_nothing_is_proved() -> None:
    assert ratio_estimate([3, 4], [10, 10], 20) == (7.0, 0.0)
    assert ratio_estimate([3], [10], 20) == (6.0, math.inf)
    assert ratio_estimate([], [], 0) == (0.0, 0.0)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    draw = random.Random(3)
    sizes = [draw.randint(80, 120) for _ in range(2000)]
    values = [size * draw.gauss(0.25, 0.05) for size in sizes]
    held = 0
    for _ in range(400):
        chosen = draw.sample(range(2000), 64)
        estimate, half_width = ratio_estimate(
            [values[index] for index in chosen], [sizes[index] for index in chosen], sum(sizes)
        )
        held += abs(estimate - sum(values)) <= half_width
    assert 0.91 <= held / 400 <= 0.99
