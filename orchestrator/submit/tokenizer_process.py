"""`python -m orchestrator.submit.tokenizer_process`: count tokens with a real tokenizer, offline.

stdin: {"tokenizer": name or path, "blocks": [[text, ...], ...]}. The last line of stdout: {"counts": [tokens of each
block, ...], "unknown": how many of all these are no words of the vocabulary}, or {"what", "fix"}. A process of its own,
because a tokenizer's library may hang, abort or take seconds.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_NEEDS_HUB = "pip install 'orchestrator[hub]'"
_SMALLEST_VOCABULARY = 256
_NOBODY = "http://127.0.0.1:1"

Encode = Callable[[list[str]], list[list[int]]]
Loaded = tuple[Encode, int | None]
"""What makes ids of texts, and the id of what is unknown; None where nothing is."""


class NoTokenizer(Exception):
    """(what, fix): there is no such tokenizer here."""


def load(name: str) -> Loaded:
    """The tokenizer in a file or folder, of the hub's cache, or one of tiktoken's. Raises NoTokenizer."""
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return _from_file(path)
    if path.is_dir():
        return _from_file(path / "tokenizer.json") if (path / "tokenizer.json").is_file() else _from_folder(name)
    if find_spec("tiktoken") and name in import_module("tiktoken").list_encoding_names():
        return _from_tiktoken(name)
    return _from_cache(name)


def _from_file(path: Path) -> Loaded:
    if find_spec("tokenizers") is None:
        raise NoTokenizer("the package tokenizers is not installed", _NEEDS_HUB)
    try:
        from tokenizers import Tokenizer

        tokenizer: Any = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more exact
        raise NoTokenizer(f"{path} is no tokenizer: {_first_line(error)}", "name a tokenizer.json") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    word = getattr(tokenizer.model, "unk_token", None)
    unknown = tokenizer.token_to_id(word) if isinstance(word, str) else None
    return lambda texts: [row.ids for row in tokenizer.encode_batch(texts, add_special_tokens=False)], unknown


def _from_tiktoken(name: str) -> Loaded:
    """tiktoken knows no offline mode: a proxy that nobody listens at keeps it from its server."""
    os.environ.update({"http_proxy": _NOBODY, "https_proxy": _NOBODY, "no_proxy": "", "NO_PROXY": ""})
    try:
        encoding = import_module("tiktoken").get_encoding(name)
    except Exception as error:  # of its own kinds, and of those of requests
        what = f"tiktoken has not got it here: {type(error).__name__}"
        fix = "load it once where there is a network, and give TIKTOKEN_CACHE_DIR both there and here"
        raise NoTokenizer(what, fix) from None
    return lambda texts: [encoding.encode(text, disallowed_special=()) for text in texts], None


def _from_cache(name: str) -> Loaded:
    if find_spec("huggingface_hub") is None:
        raise NoTokenizer("there is no such file, and huggingface_hub is not installed", _NEEDS_HUB)
    from huggingface_hub import try_to_load_from_cache

    try:
        found = {file: try_to_load_from_cache(name, file) for file in ("tokenizer.json", "tokenizer_config.json")}
    except ValueError:
        raise NoTokenizer("neither a file nor a name of the hub", "name a tokenizer.json, or an id") from None
    if isinstance(found["tokenizer.json"], str):
        return _from_file(Path(found["tokenizer.json"]))
    if isinstance(found["tokenizer_config.json"], str):
        return _from_folder(name)
    fix = f"fetch it once where there is a network: hf download {name} --include 'tokenizer*'"
    raise NoTokenizer("neither a file here nor in the hub's cache", fix)


def _from_folder(name: str) -> Loaded:
    """A tokenizer without tokenizer.json: transformers converts its older files, or makes a tiny one up in silence."""
    if find_spec("transformers") is None:
        raise NoTokenizer("it has no tokenizer.json, and transformers is not installed", _NEEDS_HUB)
    try:
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except Exception as error:  # of the many kinds that its converters raise
        raise NoTokenizer(f"it cannot be loaded: {_first_line(error)}", "name one with a tokenizer.json") from None
    if len(tokenizer) < _SMALLEST_VOCABULARY:
        what = f"its files give a vocabulary of {len(tokenizer)} words only"
        raise NoTokenizer(what, "its vocabulary file is missing: fetch it whole")
    return lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"], tokenizer.unk_token_id


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def answer(name: str, blocks: Iterable[list[str]]) -> dict[str, Any]:
    """What is written to stdout."""
    try:
        encode, unknown = load(name)
    except NoTokenizer as error:
        what, fix = error.args
        return {"what": what, "fix": fix}
    counts, num_unknown = [], 0
    for texts in blocks:
        rows = encode(texts) if texts else []
        counts.append(sum(map(len, rows)))
        num_unknown += sum(row.count(unknown) for row in rows) if unknown is not None else 0
    return {"counts": counts, "unknown": num_unknown}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    sys.stdout.write(f"\n{json.dumps(answer(asked['tokenizer'], asked['blocks']))}\n")
