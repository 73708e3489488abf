"""`python -m orchestrator.submit.assets.tokenizer_trial`: load tokenizers offline and see whether they are any good.

stdin: {name: {"folder", "least", "sample", "texts"}} as JSON; stdout: {name: [what, fix]} of those that fail. A wrong
set of files is no error to the library: of config.json alone it makes a vocabulary of five words, and every text
becomes a row of unknowns (transformers 5.23). So what counts is how a tokenizer behaves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.submit.assets.fetch_hub import INSTALL

MOST_UNKNOWN = 0.01
"""Share of tokens, and of lines that do not come back as they were."""
LEAST_OF_CONFIG = 0.5
"""Tables are padded, so a model's `vocab_size` is often a little more than the tokenizer's words, never twice them."""
_MOST_CHARS = 300
_UNTESTED = "another tokenizer, or declare it as a model to stage it untested"
_DESCRIPTIONS = frozenset({"config.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"})


@dataclass(frozen=True)
class Tokenizer:
    """What the trial needs of a tokenizer, whichever library it comes from."""

    size: int
    """Words, the added ones included."""
    unknown: int | None
    """The id of what is not in the vocabulary; None where nothing is."""
    encode: Callable[[str], list[int]]
    """Ids without special tokens."""
    decode: Callable[[Sequence[int]], str]
    normalise: Callable[[str], str]
    """What it makes of a text before cutting it up, such as small letters."""


def by_transformers(folder: Path) -> Tokenizer:
    """As training code will load it. Raises whatever the library raises."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # seconds to import, and of no use to a tokenizer
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(str(folder))
    normalizer = getattr(getattr(loaded, "backend_tokenizer", None), "normalizer", None)
    lower = bool(getattr(loaded, "do_lower_case", False))
    return Tokenizer(
        size=len(loaded),
        unknown=loaded.unk_token_id,
        encode=lambda text: list(loaded(text, add_special_tokens=False)["input_ids"]),
        decode=lambda ids: str(loaded.decode(ids, clean_up_tokenization_spaces=False)),
        normalise=normalizer.normalize_str if normalizer else str.lower if lower else str,
    )


def by_tokenizers(folder: Path) -> Tokenizer:
    """From tokenizer.json alone, where transformers is not installed."""
    from tokenizers import Tokenizer as Backend

    loaded: Any = Backend.from_file(str(folder / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    word = getattr(loaded.model, "unk_token", None)
    return Tokenizer(
        size=loaded.get_vocab_size(),
        unknown=loaded.token_to_id(word) if isinstance(word, str) else None,
        encode=lambda text: list(loaded.encode(text, add_special_tokens=False).ids),
        decode=lambda ids: str(loaded.decode(list(ids), skip_special_tokens=False)),
        normalise=loaded.normalizer.normalize_str if loaded.normalizer else str,
    )


def load(folder: Path) -> Tokenizer:
    """Raises ImportError where neither library is installed, and whatever they raise."""
    try:
        return by_transformers(folder)
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
    return by_tokenizers(folder)


def fault_of(trial: Mapping[str, Any]) -> tuple[str, str] | None:
    """(what, fix) where the tokenizer in `trial["folder"]` cannot be loaded or behaves badly."""
    folder = Path(trial["folder"])
    try:
        tokenizer = load(folder)
    except ModuleNotFoundError as error:
        return f"cannot be tried: {error.name} is not installed", INSTALL
    except Exception as error:
        why = " ".join(str(error).split())[:_MOST_CHARS] or type(error).__name__
        return f"cannot be loaded offline: {why}", "stage all the files it needs: see `files`"
    return vocabulary_fault(tokenizer, folder, trial["least"]) or text_fault(tokenizer, trial["texts"], trial["sample"])


def vocabulary_fault(tokenizer: Tokenizer, folder: Path, least: int) -> tuple[str, str] | None:
    """(what, fix) where the vocabulary is too small, or not that of the config.json beside it."""
    names = sorted(path.name for path in folder.iterdir())
    if tokenizer.size < least:
        what = f"loads without an error, with a vocabulary of {tokenizer.size} words where {least} are wanted"
        if _DESCRIPTIONS.issuperset(names):
            what = f"{what}: only {', '.join(names)} is there, and no vocabulary"
            return what, "stage tokenizer.json or vocab.txt too: see `files`, and what the repository holds"
        return what, f"choose {_UNTESTED}; or write a smaller min_vocabulary"
    stated = stated_vocabulary(folder)
    if stated is not None and not stated * LEAST_OF_CONFIG <= tokenizer.size <= stated:
        what = f"has {tokenizer.size:,} words, and config.json beside it says vocab_size {stated:,}"
        return what, "use the tokenizer and the config of one model"
    return None


def stated_vocabulary(folder: Path) -> int | None:
    """`vocab_size` of config.json; None where there is none."""
    try:
        stated = json.loads((folder / "config.json").read_bytes()).get("vocab_size")
    except (OSError, ValueError, AttributeError):
        return None
    return stated if isinstance(stated, int) else None


def text_fault(tokenizer: Tokenizer, texts: Sequence[str], sample: str) -> tuple[str, str] | None:
    """(what, fix) where too much of the `texts`, which messages call `sample`, is unknown or does not come back."""
    rows = [tokenizer.encode(text) for text in texts]
    num_ids = sum(map(len, rows))
    if num_ids == 0:
        return f"makes no tokens at all of {sample}", f"choose {_UNTESTED}"
    unknown = sum(row.count(tokenizer.unknown) for row in rows) if tokenizer.unknown is not None else 0
    if unknown > MOST_UNKNOWN * num_ids:
        what = f"{unknown / num_ids:.1%} of the tokens of {sample} are unknown to it (at most {MOST_UNKNOWN:.0%})"
        return what, f"write sample: with a text in its language; or choose {_UNTESTED}"
    known = [(text, row) for text, row in zip(texts, rows, strict=True) if tokenizer.unknown not in row]
    lost = [(text, back) for text, row in known if not _same(text, back := tokenizer.decode(row), tokenizer)]
    if len(lost) > MOST_UNKNOWN * len(known):
        before, after = _difference(*lost[0])
        what = f"{len(lost)} of {len(known)} lines of {sample} do not come back: {before!r} becomes {after!r}"
        return what, f"choose {_UNTESTED}"
    return None


def _same(text: str, back: str, tokenizer: Tokenizer) -> bool:
    """Whether a text came back, but for spaces and for what the tokenizer itself says it changes."""
    return _squeezed(tokenizer.normalise(text)) == _squeezed(tokenizer.normalise(back))


def _squeezed(text: str) -> str:
    return "".join(text.replace("\u2581", " ").split())


def _difference(text: str, back: str) -> tuple[str, str]:
    """The surroundings of the first character that differs."""
    first = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    start = max(0, first - 10)
    return text[start : first + 20], back[start : first + 20]


def main() -> int:
    """Try what stdin names."""
    trials = json.load(sys.stdin)
    faults = {name: fault for name, trial in trials.items() if (fault := fault_of(trial)) is not None}
    json.dump(faults, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
