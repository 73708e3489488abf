"""Translate with what a run has trained:

python recipes/translation/translate.py en_zh "You love me."
python recipes/translation/translate.py en_zh --beam 4 --length gnmt --alpha 0.6 --show-beams "You love me."
python recipes/translation/translate.py en_de --sweep
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch
from beams import BeamRecorder
from decode import Hypothesis, Search, translate
from scores import Scoring
from text import Text, clean
from tokens import EOS, PAD, UNK
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from orchestrator.errors import OrchestratorError
from orchestrator.worker.trained import open_trained

BATCH = 64


class Translator:
    """A trained model and the vocabulary that it was trained with."""

    def __init__(self, model: nn.Module, text: Text) -> None:
        """Raises ValueError where they do not belong together."""
        known = model.embedding.num_embeddings
        if text.vocabulary > known:
            raise ValueError(f"the tokenizer has {text.vocabulary} tokens and the model {known}: it is another run's")
        self.model, self.text = model, text

    def source(self, sentences: Sequence[str]) -> list[Tensor]:
        """Ids with EOS. Raises ValueError for an empty sentence, and for one that is too long."""
        cleaned = [clean(sentence) for sentence in sentences]
        found = [torch.tensor([*ids, EOS]) for ids in self.text.ids(cleaned)]
        for number, (sentence, ids) in enumerate(zip(cleaned, found, strict=True), start=1):
            if not sentence:
                raise ValueError(f"sentence {number} is empty: write some words")
            if len(ids) > self.model.max_positions:
                what = f"sentence {number} has {len(ids)} tokens, and the model {self.model.max_positions} positions"
                raise ValueError(f"{what}: split it")
        return found

    def unknown(self, sentence: str) -> str:
        """The characters of a sentence that no token holds, each once."""
        return "".join(dict.fromkeys(sign for sign in clean(sentence) if UNK in self.text.ids([sign])[0]))

    def __call__(self, sentences: Sequence[str], search: Search, watch: BeamRecorder | None = None) -> list[Hypothesis]:
        """The best translation of each sentence, those of about one length at a time."""
        source = self.source(sentences)
        found: dict[int, Hypothesis] = {}
        for places in batches(sorted(range(len(source)), key=lambda place: len(source[place]))):
            rows = pad_sequence([source[place] for place in places], batch_first=True, padding_value=PAD)
            best = translate(self.model, rows, search, watch)
            found |= {place: hypotheses[0] for place, hypotheses in zip(places, best, strict=True)}
        return [found[place] for place in range(len(source))]

    def sentences(self, hypotheses: Sequence[Hypothesis]) -> list[str]:
        return [self.text.sentence(hypothesis.tokens) for hypothesis in hypotheses]


def batches(places: Sequence[int]) -> Iterator[Sequence[int]]:
    return (places[first : first + BATCH] for first in range(0, len(places), BATCH))


def search_of(words: argparse.Namespace) -> Search:
    """Raises ValueError, in one line, for what makes no sense."""
    scoring = Scoring(words.length, words.alpha, words.beta, words.gamma)
    return Search(words.beam, scoring, words.stop)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="translate.py", description="Translate with what a run has trained.")
    parser.add_argument("run", help="a run's directory, its name, or the beginning of it")
    parser.add_argument("sentences", nargs="*", help="what to translate (default: the lines of standard input)")
    parser.add_argument("--beam", type=int, default=4, help="how many translations are followed (1: greedy; default 4)")
    parser.add_argument("--length", choices=("none", "power", "gnmt"), default="none", help="how lengths count")
    parser.add_argument("--alpha", type=float, default=0.0, help="how much they do, such as 0.6")
    parser.add_argument("--beta", type=float, default=0.0, help="coverage penalty, such as 0.2")
    parser.add_argument("--gamma", type=float, default=0.0, help="end-of-sentence normalisation, such as 1.0")
    parser.add_argument("--stop", choices=("first", "beam", "bound"), default="bound", help="when the search ends")
    parser.add_argument("--show-beams", action="store_true", help="how the beams grew, of the first sentence")
    parser.add_argument("--sweep", action="store_true", help="the best alpha and beta on the part for development")
    return parser.parse_intermixed_args(given)


def main(given: Sequence[str]) -> int:
    words = arguments(given)
    try:
        search = search_of(words)
        trained = open_trained(words.run)
        translator = Translator(trained.model(), Text(trained.asset("text") / "tokenizer.json"))
        if words.sweep:
            from sweep import sweep

            sweep(trained, translator, words.beam, words.length if words.length != "none" else "gnmt")
            return 0
        sentences = words.sentences or [line.rstrip("\n") for line in sys.stdin]
        for unknown in filter(None, map(translator.unknown, sentences)):
            print(f"translate.py: no token holds {unknown!r}: it is read as unknown", file=sys.stderr)
        if words.show_beams:
            recorder = BeamRecorder(translator.text)
            translator(sentences[:1], search, recorder)
            recorder.draw()
        print(*translator.sentences(translator(sentences, search)), sep="\n")
    except (ValueError, OrchestratorError) as error:
        print(f"translate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
