"""Translations beside those of people: BLEU and chrF while training, and a table to look at.

Both are made of counts that add up over sentences, batches and ranks; sacrebleu counts, and makes scores of the sums.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from data import Pairs, padded
from decode import greedy
from sacrebleu.metrics import BLEU, CHRF
from text import Text, prepared
from tokens import EOS, PAD
from torch import Tensor, nn

NUM_BLEU = 10
"""Of BLEU: the lengths of translations and references, then right n-grams and all n-grams of 1 to 4 words."""


@cache
def vocabulary() -> Text:
    return Text(prepared() / "tokenizer.json")


def sentences(ids: Tensor) -> list[str]:
    """Rows of ids, (batch, length), as text."""
    return [vocabulary().sentence([i for i in row if i not in (PAD, EOS)]) for row in ids.tolist()]


def matches(model: nn.Module, inputs: tuple[Tensor, Tensor], targets: Tensor, language: str) -> tuple[list[int], int]:
    """BLEU's counts, then chrF's, of greedy translations of a batch, and how many they are."""
    source, _ = inputs
    translations = [vocabulary().sentence(found.tokens) for found in greedy(model, source)]
    return counts(translations, sentences(targets), language), len(translations)


def counts(translations: Sequence[str], references: Sequence[str], language: str) -> list[int]:
    """What sacrebleu adds up for a corpus, as one list."""
    added: list[int] = []
    for metric in metrics(language):
        by_sentence = metric._extract_corpus_statistics(translations, [references])
        added += [sum(column) for column in zip(*by_sentence, strict=True)]
    return added


def scores(sums: Sequence[float], count: float) -> dict[str, float]:
    """BLEU and chrF, 0 to 100, of added counts, in whatever language they were counted."""
    bleu, chrf = metrics()
    whole = [round(number) for number in sums]
    return {
        "bleu": bleu._compute_score_from_stats(whole[:NUM_BLEU]).score,
        "chrf": chrf._compute_score_from_stats(whole[NUM_BLEU:]).score,
    }


@cache
def metrics(language: str = "") -> tuple[Any, Any]:
    """BLEU and chrF as sacrebleu has them; Chinese is compared by characters."""
    return BLEU(tokenize="zh" if language == "zh" else "13a"), CHRF()


def table(model: nn.Module, corpus: str, reverse: bool = False, num_sentences: int = 12) -> str:
    """The first sentences for development, with their translations, as a table in Markdown."""
    pairs = Pairs(corpus, "dev", reverse=reverse)
    device = next(model.parameters()).device
    source = padded(tuple(pairs[i][0][0] for i in range(min(num_sentences, len(pairs))))).to(device)
    translations = [vocabulary().sentence(found.tokens) for found in greedy(model, source)]
    rows = zip(pairs.sources, translations, pairs.targets, strict=False)
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(["| source | translation | reference |", "|---|---|---|", *(f"| {line} |" for line in lines), ""])
