"""What keeping keys and values saves: the same translations, with and without, in turns."""

from __future__ import annotations

import statistics
import sys

import pytest
import torch
from torch import Tensor

from tests.support.worlds import ROOT

sys.path.insert(0, str(ROOT / "recipes" / "translation"))

from model import transformer
from tokens import EOS, PAD

from tests.support.decoding import timed
from tests.support.threads import one_thread

pytestmark = pytest.mark.bench

LEAST_FACTOR = 4.0
TURNS = 3
NUM_SENTENCES, MOST_TOKENS = 200, 40
"""Of a test part: sources of 4 to 24 tokens, translations up to the length at which long ones end."""


def sources() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.full((NUM_SENTENCES, 24), PAD)
    for row, length in zip(rows, torch.randint(4, 25, (NUM_SENTENCES,), generator=generator).tolist(), strict=True):
        row[:length] = torch.randint(4, 5000, (length,), generator=generator)
        row[length - 1] = EOS
    return rows


def test_keeping_keys_and_values_is_four_times_as_fast_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model, source = transformer(5000).eval(), sources()
    factors = []
    with one_thread():
        for _ in range(TURNS):
            kept, again = (timed(model, source, MOST_TOKENS, keeps=keeps) for keeps in (True, False))
            assert [one[0].tokens for one in kept[1]] == [one[0].tokens for one in again[1]]
            factors.append(again[0] / kept[0])
    print(f"\nwith what is kept {kept[0]:.2f} s, without {again[0]:.2f} s: {statistics.median(factors):.1f} times")
    assert statistics.median(factors) >= LEAST_FACTOR
