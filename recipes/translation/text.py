"""Sentences to token ids and back."""

import os
import re
import unicodedata
from pathlib import Path

from tokenizers import Tokenizer
from tokens import BOS, EOS, PAD, UNK

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""The names of PAD, BOS, EOS and UNK in the vocabulary."""


def clean(text: str) -> str:
    """NFC, and single spaces: NFKC would make a Latin question mark of the Chinese one."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()


def prepared() -> Path:
    """The folder that `orchestrate stage` has filled (prepare.py), as a job finds it."""
    return Path(os.environ["ORCHESTRATE_ASSET_TEXT"])


class Text:
    """A vocabulary. Ids are those of its words, without BOS and EOS."""

    def __init__(self, file: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(file))
        found = [self.tokenizer.id_to_token(special) for special in (PAD, BOS, EOS, UNK)]
        if found != list(SPECIAL):
            raise ValueError(f"{file} begins with {found}, not {list(SPECIAL)}: it is not the tokenizer of prepare.py")

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return self.tokenizer.get_vocab_size()

    def ids(self, sentences: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch(sentences)]

    def sentence(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)
