"""The search and the model beside those of others: transformers' generate, and CTranslate2 with weights of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from decode import Search, beam_search, translate
from scores import Scoring
from tokens import BOS, EOS, PAD
from torch import Tensor, nn

from tests.recipes.translation.marian import VOCABULARY, ByPresentLength, MarianSteps, generated, tiny_marian
from tests.recipes.translation.own_run import text_of
from tests.recipes.workplace import Workplace
from tests.support.ctranslate import exported, forced, translated

MOST_TOKENS = 20
MODES: dict[bool | str, tuple[type[Scoring], Any]] = {
    True: (Scoring, "beam"),
    False: (ByPresentLength, "bound"),
    "never": (Scoring, "bound"),
}
"""early_stopping of transformers, and what it is here; False is a bound that is none: see marian.py."""


def sentences(seed: int) -> Tensor:
    """Eight of 5 to 9 tokens with EOS, padded."""
    source = torch.randint(4, VOCABULARY, (8, 9), generator=torch.Generator().manual_seed(seed))
    for row in range(8):
        source[row, 8 - row % 5] = EOS
        source[row, 9 - row % 5 :] = PAD
    return source


@torch.no_grad()
@pytest.mark.parametrize("early", MODES)
def test_translations_and_scores_are_those_of_transformers(early: bool | str) -> None:
    """Beams of 1 to 5, four alphas, and of two models the sentences whose translations all end.

    Those that are cut off stand behind the others here, and among them there. Its scores are fp32.
    """
    compared = 0
    kind, stop = MODES[early]
    for seed in (0, 1):
        model, source = tiny_marian(seed), sentences(seed)
        for beam in range(1, 6):
            for alpha in (0.0, 0.6, 1.0, 2.0):
                search = Search(beam, kind("power", alpha), stop, best=beam)
                ours = beam_search(MarianSteps(model, source), source != PAD, [MOST_TOKENS] * 8, search)
                theirs = generated(model, source, beam=beam, alpha=alpha, early=early, most_tokens=MOST_TOKENS)
                for mine, other in zip(ours, theirs, strict=True):
                    if all(one.finished for one in (*mine, *other)):
                        assert [one.tokens for one in mine] == [one.tokens for one in other]
                        if beam > 1:
                            assert [one.score for one in mine] == pytest.approx([o.score for o in other], abs=1e-5)
                        compared += beam
    assert compared > 900


@pytest.fixture(scope="module")
def own_model(trained: Workplace) -> tuple[nn.Module, list[list[int]]]:
    """The trained model of the small recipe, and sentences of it as ids with EOS."""
    from model import transformer
    from text import Text

    folder = text_of(trained)
    (newest,) = sorted((trained.run / "checkpoints").glob("step-*/model.pt"))[-1:]
    model = transformer(150, width=64, feed_forward=128)
    model.load_state_dict(torch.load(newest, weights_only=True))
    english = [line.split("\t")[0] for line in (folder / "tatoeba.train.tsv").read_text().splitlines()[:48]]
    return model.eval(), [[*ids, EOS] for ids in Text(folder / "tokenizer.json").ids(english)]


def eager(seed: int) -> nn.Module:
    """Random weights, large ones, so that beams differ; and a norm before the output that leans to EOS."""
    from model import transformer

    torch.manual_seed(seed)
    model = transformer(VOCABULARY, width=32, feed_forward=64, dropout=0.0).eval()
    for weight in model.parameters():
        weight.data *= 2.0 if weight.dim() > 1 else 1.0
    end = model.embedding.weight.data[EOS]
    model.decoder_norm.weight.data.normal_()
    model.decoder_norm.bias.data.copy_(1.5 * end / end.norm())
    return model


def like_ctranslate2(beam: int, alpha: float) -> Search:
    """It stops when as many have ended as the beam is wide; where lengths do not count, when the best has ended.

    It forbids no token, and where it stops with the best it is asked for one translation alone.
    """
    stop, best = ("beam", beam) if alpha else ("bound", 1)
    return Search(beam, Scoring("power", alpha), stop, best, lambda length: MOST_TOKENS, never=())


def test_ctranslate2_gives_each_token_the_log_probability_that_our_model_gives_it(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in (0, 1):
        model, source = eager(seed), sentences(seed)
        target = torch.randint(4, VOCABULARY, (8, 12), generator=generator)
        theirs = forced(exported(model, tmp_path / str(seed)), [ids[ids != PAD].tolist() for ids in source], target)
        told = model.double()(source, nn.functional.pad(target, (1, 0), value=BOS)).log_softmax(-1)
        ours = told.gather(2, nn.functional.pad(target, (0, 1), value=EOS)[..., None])[..., 0]
        assert torch.allclose(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("beam", "alpha"), [(beam, alpha) for beam in (1, 2, 4, 5) for alpha in (0.0, 0.6, 1.0)])
def test_ctranslate2_finds_the_same_with_random_weights(tmp_path: Path, beam: int, alpha: float) -> None:
    """All translations of the sentences of which none is cut off there: it ranks those among the others, we behind."""
    compared, search = 0, like_ctranslate2(beam, alpha)
    for seed in range(8):
        model, source = eager(seed), sentences(seed)
        theirs = translated(
            exported(model, tmp_path / str(seed)),
            [ids[ids != PAD].tolist() for ids in source],
            beam_size=beam,
            num_hypotheses=search.best,
            length_penalty=alpha,
            max_decoding_length=MOST_TOKENS,
        )
        for mine, other in zip(translate(model.double(), source, search), theirs, strict=True):
            if all(len(one.tokens) < MOST_TOKENS for one in other):
                assert [one.tokens for one in mine] == [one.tokens for one in other]
                assert [one.score for one in mine] == pytest.approx([one.score for one in other], rel=1e-5, abs=1e-5)
                compared += 1
    assert compared >= 30


@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.0), (2, 0.0), (4, 0.6), (4, 1.0)])
def test_ctranslate2_finds_the_same_with_our_trained_weights(
    own_model: tuple[nn.Module, list[list[int]]], tmp_path: Path, beam: int, alpha: float
) -> None:
    """The best translation of each; among what is all but impossible for a trained model, rounding decides."""
    model, rows = own_model
    source = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)
    ours = translate(model, source, like_ctranslate2(beam, alpha))
    theirs = translated(
        exported(model, tmp_path / "model"), rows, beam_size=beam, length_penalty=alpha, max_decoding_length=MOST_TOKENS
    )
    assert [found[0].tokens for found in ours] == [found[0].tokens for found in theirs]
    assert BOS not in ours[0][0].tokens
    assert [one[0].score for one in ours] == pytest.approx([one[0].score for one in theirs], rel=1e-5, abs=1e-5)
