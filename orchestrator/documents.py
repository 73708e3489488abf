"""YAML text as plain data that remembers where every key was written.

YAML must not choose the type behind a person's back: `1e-3` is a number (PyYAML's own rule misses it), a date or
`0100` stays text, and what YAML 1.1 turns into something else (`2:00:00` is 7200, `no` is false) keeps its written
form beside the value, so that a text field can refuse it and say what to put in quotes.
Refused: duplicate keys, keys that are not text, merge keys, tags, anchors that explode, files over 1 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import OrchestratorError, Problem

try:
    from yaml import CSafeDumper as SafeDumper
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeDumper, SafeLoader  # type: ignore[assignment]

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the root of a document."""

MAX_BYTES = 1024**2
MAX_NODES = 100_000
MAX_DEPTH = 64

_NULL, _BOOL, _INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))
_MAP, _SEQ, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "merge"))
_IMPLICIT = (
    (_NULL, r"~|null|Null|NULL|", "~nN"),
    (_BOOL, r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    (_INT, r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)", "-+0123456789"),
    (_FLOAT, r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
             r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)", "-+0123456789."),
    (_MERGE, r"<<", "<"),
)  # fmt: skip


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    by_first: dict[str, list[tuple[str, re.Pattern[str]]]] = {"": [(_NULL, re.compile(r"^$"))]}
    for tag, pattern, first in _IMPLICIT:
        for character in first:
            by_first.setdefault(character, []).append((tag, re.compile(f"^(?:{pattern})$")))
    return by_first


class _Loader(SafeLoader):
    yaml_implicit_resolvers = _resolvers()


class _Dumper(SafeDumper):
    yaml_implicit_resolvers = _resolvers()

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class Place:
    """Where something was written: `file:line:column` from 1, or (line 0) an override, with the `key` it sets."""

    source: str
    line: int = 0
    column: int = 0
    key: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


def dotted(path: Iterable[str | int]) -> str:
    """`datasets.0.name`: a key path as messages and overrides write it."""
    return ".".join(map(str, path))


@dataclass(frozen=True)
class Document:
    """Plain data, the place of every key in it, and how unquoted scalars that are not text were written."""

    source: str
    data: Any
    places: Mapping[KeyPath, Place]
    written: Mapping[KeyPath, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """What is wrong with the text so far, each told with its place; the rest of it can be read."""
    unread: frozenset[KeyPath] = frozenset()
    """Where a value stands that could not be read: nothing may be concluded from it."""

    def place(self, key: str) -> Place:
        """The place of a dotted key, or of its nearest ancestor that is there."""
        known = {dotted(path): place for path, place in self.places.items()}
        while key and key not in known:
            key = key.rpartition(".")[0]
        return known.get(key) or Place(self.source, 1, 1)

    def where(self, key: str) -> str:
        """`recipe.yaml:14:3 batch.effective`; an override's own words where they name the key already."""
        place = self.place(key)
        if not key or (place.key + ".").startswith(key + "."):
            return str(place)
        return f"{place} {key}"

    def placed(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """Problems whose `where` is a dotted key, told with its place, in the order of the file."""
        ordered = sorted(
            problems, key=lambda problem: (self.place(problem.where).line, self.place(problem.where).column)
        )
        return tuple(replace(problem, where=self.where(problem.where)) for problem in ordered)


class _TooMuch(Exception):
    """Reading stops here: the text expands or nests without end."""


class _Builder:
    """Turns YAML nodes into plain data; collects every problem on the way."""

    def __init__(self, place: Callable[[yaml.Mark], Place]) -> None:
        self.place = place
        self.places: dict[KeyPath, Place] = {}
        self.written: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self.unread: set[KeyPath] = set()
        self._num_nodes = 0
        self._scalars: dict[str, Callable[[yaml.ScalarNode], Any]] = {
            _NULL: lambda node: None,
            _BOOL: yaml.constructor.SafeConstructor().construct_yaml_bool,
            _INT: yaml.constructor.SafeConstructor().construct_yaml_int,
            _FLOAT: yaml.constructor.SafeConstructor().construct_yaml_float,
            _STR: lambda node: node.value,
        }

    def refuse(self, node: yaml.Node, what: str, fix: str) -> None:
        self.problems.append(Problem(str(self.place(node.start_mark)), what, fix))

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES or len(path) > MAX_DEPTH:
            self.refuse(
                node,
                f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels, counting every use of an anchor",
                "write the values out without anchors (&name, *name)",
            )
            raise _TooMuch
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return self._sequence(node, path)
        if isinstance(node, yaml.ScalarNode) and node.tag in self._scalars:
            return self._scalar(node, path)
        self.unread.add(path)
        self.refuse(
            node,
            f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not read",
            "write plain values, without tags",
        )
        return None

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = self._scalars[node.tag](node)
        except (ValueError, KeyError):
            self.unread.add(path)
            self.refuse(
                node, f"{node.value[:40]!r} is not a number or truth value", "take the tag away, or mend the value"
            )
            return None
        if not node.style and not isinstance(value, str):
            self.written[path] = node.value
        return value

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        for index, item in enumerate(node.value):
            self.places[(*path, index)] = self.place(item.start_mark)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self.unread.add(path)
                self.refuse(
                    key_node, "merge keys (<<) are not read", "write the keys out, or use ${...} for single values"
                )
            elif not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _STR:
                self.unread.add(path)
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.refuse(key_node, f"a key must be text, found {shown}", "put the key in quotes")
            elif key_node.value in result:
                self.unread.add((*path, key_node.value))
                first = self.places[(*path, key_node.value)]
                self.refuse(
                    key_node, f"the key {key_node.value!r} stands here twice (first at {first})", "keep one of them"
                )
            else:
                here = (*path, key_node.value)
                self.places[here] = self.place(key_node.start_mark)
                result[key_node.value] = self.value(value_node, here)
        return result


def parse_yaml(text: str, source: str, error: type[OrchestratorError], *, override_of: str = "") -> Document:
    """Any YAML value in `text`. With `override_of` (a dotted key) every place in it is the override `source` itself.

    What can be told apart from the rest stands in the document's problems. Raises `error` for text that is no YAML.
    """

    def place(mark: yaml.Mark) -> Place:
        return Place(source, key=override_of) if override_of else Place(source, mark.line + 1, mark.column + 1)

    builder = _Builder(place)
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = None if node is None else builder.value(node, ())
    except _TooMuch:
        raise error(builder.problems[-1]) from None
    except RecursionError:
        raise error(Problem(source, "nested too deeply", "write it flatter")) from None
    except yaml.YAMLError as fault:
        raise error(_syntax_problem(fault, text, source, place)) from None
    problems, unread = tuple(builder.problems), frozenset(builder.unread)
    return Document(source, data, builder.places, builder.written, problems, unread)


def _syntax_problem(fault: yaml.YAMLError, text: str, source: str, place: Callable[[yaml.Mark], Place]) -> Problem:
    told = getattr(fault, "problem", None) or getattr(fault, "reason", None) or "it cannot be read"
    mark = getattr(fault, "problem_mark", None) or _mark_at(text, getattr(fault, "position", 0))
    fix = "check the indentation and the colons on this line and the one above; quote values that hold ': ' or ' #'"
    if text.splitlines()[mark.line : mark.line + 1] and "\t" in text.splitlines()[mark.line][: mark.column + 1]:
        fix = "indent with spaces, not tabs"
    elif "single document" in str(fault):
        told, fix = "a second document starts here", "take the line '---' away: one file holds one document"
    elif "control character" in told or ("not allowed" in told and isinstance(fault, yaml.reader.ReaderError)):
        fix = "take the invisible character away"
    return Problem(str(place(mark)), f"not valid YAML: {told}", fix)


def _mark_at(text: str, num_bytes: int) -> yaml.Mark:
    """The mark of a byte offset: what libyaml's reader reports."""
    before = text.encode()[:num_bytes].decode(errors="ignore")
    line_start = before.rfind("\n") + 1
    return yaml.Mark("", num_bytes, before.count("\n"), len(before) - line_start, None, 0)


def parse_document(text: str, source: str, error: type[OrchestratorError]) -> Document:
    """The mapping that `text` holds; `source` names it in messages. Raises `error` with every problem found."""
    document = parse_yaml(text, source, error)
    if not isinstance(document.data, dict):
        found = (
            "it is empty"
            if document.data is None
            else "it is a list"
            if isinstance(document.data, list)
            else "it is one value"
        )
        raise error(Problem(source, f"a mapping of keys is wanted, but {found}", "write lines such as 'name: first'"))
    return document


def read_document(path: Path | str, error: type[OrchestratorError]) -> Document:
    """The mapping in the YAML file `path`, which messages name as given. Raises `error`, for a missing file as well."""
    source = str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise error(
            Problem(source, "there is no such file", "check the path, which is taken from the current folder")
        ) from None
    except IsADirectoryError:
        raise error(Problem(source, "this is a folder", "name the YAML file in it")) from None
    except UnicodeDecodeError as fault:
        raise error(Problem(source, f"not UTF-8 text (byte {fault.start})", "save the file as UTF-8")) from None
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise error(Problem(source, f"cannot be read: {reason}", "check the path and its permissions")) from None
    if len(content) > MAX_BYTES:
        raise error(Problem(source, "larger than 1 MiB", "name the YAML file; data does not belong in it"))
    return parse_document(text, source, error)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """`data` as YAML text that `parse_document` reads back as the same values."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
