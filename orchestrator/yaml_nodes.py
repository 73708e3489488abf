"""YAML as a composed tree, turned into plain data by rules of our own. PyYAML is imported here and in `documents`.

YAML must not choose the type behind a person's back: `1e-3` is a number (PyYAML's own rule misses it), a date or
`0100` stays text, and what YAML 1.1 turns into something else (`2:00:00` is 7200, `no` is false) keeps its written
form beside the value, so that a field can refuse it and say what to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from orchestrator.errors import Place, Problem

try:
    from yaml import CSafeDumper as SafeDumper
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeDumper, SafeLoader  # type: ignore[assignment]

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the root of a document."""

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


class Loader(SafeLoader):
    """Composes nodes; which plain scalars are numbers, truth values or nothing is decided here."""

    yaml_implicit_resolvers = _resolvers()


class Dumper(SafeDumper):
    """Writes values so that `Loader` reads the same ones; no anchors."""

    yaml_implicit_resolvers = _resolvers()

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dotted(path: Iterable[str | int]) -> str:
    """`datasets.0.name`: a key path as messages and overrides write it."""
    return ".".join(map(str, path))


_NUMERIC = tuple("+-.0123456789")


class TooMuch(Exception):
    """Reading stops here: the text expands or nests without end."""


class Builder:
    """Turns YAML nodes into plain data, and remembers where each stood; collects every problem on the way."""

    def __init__(self, place: Callable[[yaml.Mark], Place], above: KeyPath = ()) -> None:
        self.place = place
        self.above = above
        """Where the root of what is built stands in a larger document."""
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

    def refuse(self, node: yaml.Node, path: KeyPath, what: str, fix: str) -> None:
        self.problems.append(Problem.at(self.place(node.start_mark), dotted((*self.above, *path)), what, fix))

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES or len(path) > MAX_DEPTH:
            what = f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels, counting every use of an anchor"
            self.refuse(node, (), what, "write the values out without anchors (&name, *name)")
            raise TooMuch
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return self._sequence(node, path)
        if isinstance(node, yaml.ScalarNode) and node.tag in self._scalars:
            return self._scalar(node, path)
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        self.unread.add(path)
        self.refuse(node, path, f"the tag {tag} is not read", "write plain values, without tags")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = self._scalars[node.tag](node)
        except (ValueError, KeyError):
            self.unread.add(path)
            what = f"{node.value[:40]!r} is not a number or truth value"
            self.refuse(node, path, what, "take the tag away, or mend the value")
            return None
        if not node.style and (not isinstance(value, str) or value.startswith(_NUMERIC)):
            self.written[path] = node.value
        return value

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        for index, item in enumerate(node.value):
            self.places[(*path, index)] = self.place(item.start_mark)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _STR:
                self._refuse_key(key_node, path)
                continue
            here = (*path, key_node.value)
            if key_node.value in result:
                self.unread.add(here)
                first = self.places[here]
                what = "this key stands here twice" + (f", first in line {first.line}" if first.line else "")
                self.refuse(key_node, here, what, "keep one of them")
            else:
                self.places[here] = self.place(key_node.start_mark)
                result[key_node.value] = self.value(value_node, here)
        return result

    def _refuse_key(self, node: yaml.Node, path: KeyPath) -> None:
        if node.tag == _MERGE:
            self.unread.add(path)
            fix = "write the keys out, or use ${...} for single values"
            self.refuse(node, path, "merge keys (<<) are not read", fix)
            return
        if path:  # at the root every key is a fixed word, so this one stands for none of them
            self.unread.add(path)
        shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        self.refuse(node, path, f"a key must be text, found {shown}", "put the key in quotes")


def plain(text: str) -> Any:
    """What `text` would be if it stood in YAML without quotes; the text itself where that is text."""
    for tag, pattern in Loader.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return Builder(lambda mark: Place("")).value(yaml.ScalarNode(tag, text), ())
    return text
