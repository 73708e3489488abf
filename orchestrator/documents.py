"""YAML text as plain data that remembers where every key was written.

Refused: duplicate keys, keys that are not text, merge keys, tags, anchors that explode, files over 1 MiB. What cannot
be read alone (a duplicate key, a tag) is a problem that the document carries; the rest of it is read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import OrchestratorError, Place, Problem
from orchestrator.yaml_nodes import Builder, Dumper, KeyPath, Loader, TooMuch, dotted

MAX_BYTES = 1024**2


@dataclass(frozen=True)
class Document:
    """Plain data, the place of every key in it, and what is wrong with the text that it was read from."""

    source: str
    data: Any
    places: Mapping[KeyPath, Place]
    written: Mapping[KeyPath, str] = field(default_factory=dict)
    """How unquoted scalars were written that are not text, or look like a number and are text."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the text so far, each told with its place; the rest of it can be read."""
    unread: frozenset[KeyPath] = frozenset()
    """Where a value stands that could not be read, or not surely: nothing may be concluded from it."""

    @cached_property
    def _known(self) -> Mapping[str, Place]:
        return {dotted(path): place for path, place in self.places.items()}

    def place(self, key: str) -> Place:
        """The place of a dotted key, or of its nearest ancestor that is there."""
        while key and key not in self._known:
            key = key.rpartition(".")[0]
        return self._known.get(key) or Place(self.source, 1, 1)

    def _place_of(self, problem: Problem) -> Place:
        """The place of its key; of the last override that set one of the keys that it is about, if one did."""
        places = [self._known[key] for key in problem.about if key in self._known]
        overrides = [place for place in places if place.key is not None]
        return max(overrides, key=lambda place: place.column, default=self.place(problem.where))

    def where(self, key: str) -> str:
        """`recipe.yaml:14:3 batch.effective`; an override's own words where they name the key already."""
        return self.place(key).naming(key)

    def placed(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """Problems whose `where` is a dotted key, told with its place, each once, in the order of the file."""
        placed = [
            problem if problem.place else Problem.at(self._place_of(problem), problem.where, problem.what, problem.fix)
            for problem in problems
        ]
        return tuple(sorted(dict.fromkeys(placed), key=lambda problem: problem.position))

    def refusing(self, problems: Iterable[Problem], unread: Iterable[KeyPath]) -> Document:
        """The same document with more problems, and more that could not be read."""
        told = (*self.problems, *self.placed(problems))
        return replace(self, problems=told, unread=self.unread.union(unread))

    @property
    def in_base_sixty(self) -> tuple[KeyPath, ...]:
        """Where YAML took something like 1:30 for a number, here 90."""
        colons = (path for path, text in self.written.items() if ":" in text)
        return tuple(path for path in colons if isinstance(reduce(getitem, path, self.data), int))


def parse_yaml(
    text: str, source: str, error: type[OrchestratorError], *, override: Place | None = None, above: KeyPath = ()
) -> Document:
    """Any YAML value in `text`; `source` names it in messages. The value of an `override` stands `above` in a document.

    What can be told apart from the rest stands in the document's problems. Raises `error` for text that is no YAML,
    or that expands without end.
    """

    def place(mark: yaml.Mark) -> Place:
        return override or Place(source, mark.line + 1, mark.column + 1)

    builder = Builder(place, above)
    try:
        node = yaml.compose(text, Loader=Loader)
        data = None if node is None else builder.value(node, ())
    except TooMuch:
        raise error(builder.problems) from None
    except RecursionError:
        raise error(Problem.at(Place(source), "", "nested too deeply", "write it flatter")) from None
    except yaml.YAMLError as fault:
        raise error(_syntax_problem(fault, text, place)) from None
    return Document(source, data, builder.places, builder.written, tuple(builder.problems), frozenset(builder.unread))


_QUOTE = "quote it, if it is text: '...'"
_ADVICE: tuple[tuple[str, str, str, str], ...] = (
    ("quoted scalar", "end of stream", "a quote is opened here and never closed", "close the quote"),
    ("quoted scalar", "", "", "write it in single quotes: in double quotes a backslash begins a code"),
    ("an alias", "", "* at the beginning of a value names an anchor", _QUOTE),
    ("an anchor", "", "& at the beginning of a value makes an anchor", _QUOTE),
    ("", "undefined alias", "", _QUOTE),
    ("", "cannot start any token", "a value cannot begin with this character", _QUOTE),
    ("", "control character", "", "take the invisible character away"),
)
"""Words in the parser's context and its problem; what is told instead, at the context's place; what to write."""
_INDENT = "check the indentation and the colons on this line and the one above; quote values that hold ': ' or ' #'"


def _syntax_problem(fault: yaml.YAMLError, text: str, place: Callable[[yaml.Mark], Place]) -> Problem:
    told = getattr(fault, "problem", None) or getattr(fault, "reason", None) or "it cannot be read"
    mark = getattr(fault, "problem_mark", None) or _mark_at(text, getattr(fault, "position", 0))
    context, opened = getattr(fault, "context", None) or "", getattr(fault, "context_mark", None) or mark
    known = next((row for row in _ADVICE if row[0] in context and row[1] in told), None)
    fix = _INDENT
    if text.splitlines()[mark.line : mark.line + 1] and "\t" in text.splitlines()[mark.line][: mark.column + 1]:
        fix = "indent with spaces, not tabs"
    elif "single document" in str(fault):
        told, fix = "a second document starts here", "take the line '---' away: one file holds one document"
    elif "flow" in context and opened.line < mark.line:
        closing = "}" if "mapping" in context else "]"
        told, fix, mark = "a bracket is opened here and never closed", f"close it with {closing!r}", opened
    elif known is not None:
        told, fix, mark = known[2] or told, known[3], opened if known[2] else mark
    elif "not allowed" in told and isinstance(fault, yaml.reader.ReaderError):
        fix = "take the invisible character away"
    return Problem.at(place(mark), "", f"not valid YAML: {told}", fix)


def _mark_at(text: str, num_bytes: int) -> yaml.Mark:
    """The mark of a byte offset: what libyaml's reader reports."""
    before = text.encode()[:num_bytes].decode(errors="ignore")
    line_start = before.rfind("\n") + 1
    return yaml.Mark("", num_bytes, before.count("\n"), len(before) - line_start, None, 0)


def parse_document(text: str, source: str, error: type[OrchestratorError]) -> Document:
    """The mapping that `text` holds; `source` names it in messages. Raises `error` for text that is none."""
    document = parse_yaml(text, source, error)
    if isinstance(document.data, dict):
        return document
    if document.problems:
        raise error(document.problems)
    found = {type(None): "it is empty", list: "it is a list"}.get(type(document.data), "it is one value")
    what = f"a mapping of keys is wanted, but {found}"
    raise error(Problem.at(Place(source), "", what, "write lines such as 'name: first'"))


def read_document(path: Path | str, error: type[OrchestratorError]) -> Document:
    """The mapping in the YAML file `path`, which messages name as given. Raises `error`, for a missing file as well."""
    source = str(path)

    def refusal(what: str, fix: str) -> OrchestratorError:
        return error(Problem.at(Place(source), "", what, fix))

    try:
        if Path(path).is_fifo():
            raise refusal("this is a pipe", "name a file: it is read more than once")
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise refusal("larger than 1 MiB", "name the YAML file; data does not belong in it")
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise refusal("there is no such file", "check the path, which is taken from the current folder") from None
    except IsADirectoryError:
        raise refusal("this is a folder", "name the YAML file in it") from None
    except UnicodeDecodeError as fault:
        raise refusal(f"not UTF-8 text (byte {fault.start})", "save the file as UTF-8") from None
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise refusal(f"cannot be read: {reason}", "check the path and its permissions") from None
    return parse_document(text, source, error)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """`data` as YAML text that `parse_document` reads back as the same values."""
    text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
