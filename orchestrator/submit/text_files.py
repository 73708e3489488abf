"""The text in files, read as a stream in blocks of whole words or whole records, however large the files are.

Of JSON lines and of tables (CSV, TSV) the values that are text count: no keys, no header, no numbers.
In TSV a quotation mark is a letter like any other.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.token_rules import texts_in

BLOCK_CHARACTERS = 16 * 1024
_LONGEST_WORD = 64 * 1024
_LONGEST_LINE = 16 * 1024**2
_READ_BYTES = 64 * 1024
_SPACE = re.compile(r"\s")
_COLUMN = re.compile(r"(?:[^\W\d]\w{0,30}(?:[ ./:-]\w{1,20}){0,2})?")

Block = tuple[str, ...]
"""Texts that a tokenizer reads one by one."""


def files_of(path: Path) -> tuple[Path, ...]:
    """`path` itself, or all files below a folder but the hidden ones. Raises RecipeError where there is none."""
    if path.is_file():
        return (path,)
    if not path.is_dir():
        fix = "name a text file, a folder of them, or a dataset of a recipe: recipe.yaml:train"
        raise RecipeError(Problem(str(path), "there is no such file or folder", fix))
    below = ((file, file.relative_to(path).parts) for file in sorted(path.rglob("*")))
    files = tuple(file for file, parts in below if file.is_file() and not any(part[0] == "." for part in parts))
    if not files:
        raise RecipeError(Problem(str(path), "this folder holds no files", "name one that holds text"))
    return files


def blocks_of_all(files: Iterable[Path]) -> Iterator[Block]:
    """The text of several files; small ones share a block. Raises RecipeError as `blocks_of` does."""
    return _grouped(chain.from_iterable(map(blocks_of, files)), least_characters=BLOCK_CHARACTERS // 2)


def blocks_of(path: Path) -> Iterator[Block]:
    """The text of a file (or .gz), by its suffix. Raises RecipeError for what is not UTF-8, JSON or a table."""
    suffixes = path.suffixes[:-1] if path.suffix == ".gz" else path.suffixes
    read = _READERS.get(suffixes[-1] if suffixes else "", _plain)
    try:
        yield from read(path, _decoded(path))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise RecipeError(Problem(str(path), "it is not a whole gzip file", "copy it again")) from None
    except OSError as fault:
        problem = Problem(str(path), f"cannot be read: {fault.strerror}", "check the path and its permissions")
        raise RecipeError(problem) from None


def _decoded(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    offset = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while True:
            piece = file.read(_READ_BYTES)
            if offset == 0 and b"\0" in piece:
                fix = "name the text that it was made from; if it is UTF-16: iconv -f UTF-16 -t UTF-8 OLD > NEW"
                raise RecipeError(Problem(str(path), f"not UTF-8 text: byte {piece.index(0)} is zero", fix))
            pending = len(decoder.getstate()[0])
            try:
                yield decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as fault:
                what = f"not UTF-8 text (byte {offset - pending + fault.start})"
                fix = "convert it first, such as: iconv -f LATIN1 -t UTF-8 OLD > NEW"
                raise RecipeError(Problem(str(path), what, fix)) from None
            if not piece:
                return
            offset += len(piece)


def _plain(path: Path, pieces: Iterator[str]) -> Iterator[Block]:
    held = ""
    for piece in pieces:
        held += piece
        while len(held) >= BLOCK_CHARACTERS:
            cut = _cut(held[:_LONGEST_WORD])
            if cut == 0:
                break
            yield (held[:cut],)
            held = held[cut:]
    if held:
        yield (held,)


def _cut(text: str) -> int:
    """Where to part `text`, of a block or more, so that no word is torn; 0 where more of it must be seen first.

    Only what has no white space for 64 Ki characters is torn all the same.
    """
    newline = text.rfind("\n", 0, BLOCK_CHARACTERS) + 1
    if newline or text[BLOCK_CHARACTERS - 1].isspace():
        return newline or BLOCK_CHARACTERS
    words = text[:BLOCK_CHARACTERS].rsplit(None, 1)
    if len(words) == 2:
        return BLOCK_CHARACTERS - len(words[1])
    space = _SPACE.search(text, BLOCK_CHARACTERS)
    if space is not None:
        return space.start()
    return len(text) if len(text) == _LONGEST_WORD else 0


def _lines(path: Path, pieces: Iterator[str]) -> Iterator[str]:
    held = ""
    for piece in pieces:
        *whole, held = (held + piece).split("\n")
        yield from (line + "\n" for line in whole)
        if len(held) > _LONGEST_LINE:
            raise RecipeError(Problem(str(path), "a line of more than 16 MiB", "write one record a line"))
    if held:
        yield held


def _json_lines(path: Path, pieces: Iterator[str]) -> Iterator[Block]:
    def records() -> Iterator[Block]:
        for number, line in enumerate(_lines(path, pieces), start=1):
            try:
                yield tuple(texts_in(json.loads(line))) if line.strip() else ()
            except (ValueError, RecursionError) as fault:
                what = f"not JSON: {fault}"
                raise RecipeError(Problem(f"{path}:{number}", what, "write one JSON value a line")) from None

    return _grouped(records())


def _table(delimiter: str, quoting: Literal[0, 3]) -> Callable[[Path, Iterator[str]], Iterator[Block]]:
    def read(path: Path, pieces: Iterator[str]) -> Iterator[Block]:
        csv.field_size_limit(_LONGEST_LINE)
        rows = csv.reader(_lines(path, pieces), delimiter=delimiter, quoting=quoting)

        def records() -> Iterator[Block]:
            try:
                first = next(rows, [])
                kept = [] if _is_header(first) else [first]
                yield from (tuple(cell for cell in row if cell and not _is_number(cell)) for row in chain(kept, rows))
            except csv.Error as fault:
                problem = Problem(f"{path}:{rows.line_num}", f"not a table: {fault}", "check its quotes")
                raise RecipeError(problem) from None

        return _grouped(records())

    return read


def _is_header(row: list[str]) -> bool:
    """Whether a table's first row names its columns: short, all different, no sentence and no number among them."""
    return len(set(row)) == len(row) and all(_COLUMN.fullmatch(cell) and not _is_number(cell) for cell in row)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _grouped(records: Iterator[Block], *, least_characters: int = BLOCK_CHARACTERS) -> Iterator[Block]:
    held: list[str] = []
    size = 0
    for record in records:
        held += record
        size += sum(map(len, record))
        if size >= least_characters:
            yield tuple(held)
            held, size = [], 0
    if held:
        yield tuple(held)


_READERS: dict[str, Callable[[Path, Iterator[str]], Iterator[Block]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _table(",", csv.QUOTE_MINIMAL),
    ".tsv": _table("\t", csv.QUOTE_NONE),
}
