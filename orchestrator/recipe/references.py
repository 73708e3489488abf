"""Which `${a.b}` of a document names what: what is missing, what leads back to itself, what hangs on what. Pure.

Only plain names are followed (`${a.b}`, `${a.b[0]}`, `${.c}`); whatever else OmegaConf can read is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from orchestrator.errors import Problem, nearest
from orchestrator.kinds import kind_at
from orchestrator.recipe.schema import Recipe
from orchestrator.yaml_nodes import KeyPath, dotted

_NAME = re.compile(r"\$\{\s*(?!plan\.)([^\s${}:,'\"]+)\s*\}")

_MOST_COMPARED = 1000
"""Among so many keys a near one is looked for: comparing takes its time."""
_MOST_NAMED = 20
"""So many keys are named where none is near."""


@dataclass(frozen=True)
class Reference:
    """One `${name}` in the text at `holder`."""

    name: str
    holder: KeyPath
    path: KeyPath
    """What the name means, from the root."""
    found: KeyPath
    """As much of `path` as is there."""
    value: Any
    """What stands at `found`."""

    @property
    def is_there(self) -> bool:
        """Whether it names something; what lies behind another interpolation may be there."""
        return self.found == self.path or (isinstance(self.value, str) and "${" in self.value)

    @cached_property
    def near(self) -> str | None:
        """The key that was probably meant, of those that stand beside the missing one."""
        if not isinstance(self.value, dict) or len(self.value) > _MOST_COMPARED:
            return None
        return nearest(str(self.path[len(self.found)]), self.value)

    @property
    def is_misspelt_there(self) -> bool:
        """Whether the name is right and the key that it means is misspelt, which is told at that key."""
        if self.near is None or kind_at(Recipe, (*self.found, self.near)) is not None:
            return False
        return kind_at(Recipe, self.path[: len(self.found) + 1]) is not None

    def missing(self) -> Problem:
        """That it names nothing, with what was probably meant."""
        fix = "name a key that stands in the recipe or in an override"
        if self.near is not None:
            meant = (*self.found, self.near, *self.path[len(self.found) + 1 :])
            fix = f"did you mean {dotted(meant)!r}?"
        elif kind_at(Recipe, self.path) is not None:
            fix = f"write {dotted(self.path)} in the recipe: its default cannot be inserted"
        elif isinstance(self.value, dict) and 0 < len(self.value) <= _MOST_NAMED:
            fix = f"choose one of: {', '.join(dotted((*self.found, key)) for key in sorted(self.value))}"
        return Problem(dotted(self.holder), f"there is no {self.name!r} to insert", fix)


def references(texts: Mapping[KeyPath, str], data: Any) -> Iterator[Reference]:
    """Every plain `${name}` in `texts`, looked up in `data`."""
    for holder, text in texts.items():
        for name in _NAME.findall(text):
            yield Reference(name, holder, *_followed(*_walked(_path_of(name, holder), data), data))


def _path_of(name: str, holder: KeyPath) -> KeyPath:
    """What `name` means in the text at `holder`, from the root; `.x` is a sibling, `..x` one of the level above."""
    dots = len(name) - len(name.lstrip("."))
    base = holder[:-dots] if dots else ()
    return (*base, *(part for part in re.split(r"[.\[\]]", name) if part))


_Walk = tuple[KeyPath, KeyPath, Any]
"""A path, as much of it as is there, and what stands at the end of that."""


def _walked(path: KeyPath, data: Any) -> _Walk:
    found: KeyPath = ()
    for part in path:
        key = int(part) if isinstance(data, list) and str(part).isdecimal() else part
        try:
            data = data[key]
        except (LookupError, TypeError):
            return path, found, data
        found = (*found, key)
    return found, found, data


def _followed(path: KeyPath, found: KeyPath, value: Any, data: Any) -> _Walk:
    """The same where the way ends at nothing but another `${name}`: what lies behind that, if it is there."""
    onward, stop, end, seen = path, found, value, set[KeyPath]()
    while stop != onward and isinstance(end, str) and stop not in seen:
        whole = _NAME.fullmatch(end)
        if whole is None:
            break
        seen.add(stop)
        onward, stop, end = _walked((*_path_of(whole[1], stop), *onward[len(stop) :]), data)
    return (onward, stop, end) if stop == onward else (path, found, value)


class Dependencies:
    """Which texts hang on which, for texts whose references are all there."""

    def __init__(self, texts: Collection[KeyPath], named: Iterable[Reference]) -> None:
        below: dict[KeyPath, set[KeyPath]] = {}
        for path in texts:
            for length in range(len(path) + 1):
                below.setdefault(path[:length], set()).add(path)
        self._on: dict[KeyPath, set[KeyPath]] = {path: set() for path in texts}
        for reference in named:
            if reference.found == reference.path:
                above = (reference.found[:length] for length in range(len(reference.found)))
                self._on[reference.holder].update(below.get(reference.found, ()), self._on.keys() & set(above))
            elif reference.is_there:
                self._on[reference.holder].add(reference.found)

    def circular(self) -> set[KeyPath]:
        """Texts that insert themselves, by whatever way."""
        stuck = _stuck(self._on)
        among = {path: self._on[path] & stuck for path in stuck}
        backwards: dict[KeyPath, set[KeyPath]] = {path: set() for path in stuck}
        for path, needed in among.items():
            for other in needed:
                backwards[other].add(path)
        return _stuck(backwards)

    def hanging_on(self, unknown: Collection[KeyPath]) -> set[KeyPath]:
        """`unknown`, and every text that inserts one of them, by whatever way."""
        users: dict[KeyPath, set[KeyPath]] = {}
        for path, needed in self._on.items():
            for other in needed:
                users.setdefault(other, set()).add(path)
        reached, waiting = set(unknown), list(unknown)
        while waiting:
            fresh = users.get(waiting.pop(), set()) - reached
            reached |= fresh
            waiting += fresh
        return reached


def _stuck(graph: Mapping[KeyPath, set[KeyPath]]) -> set[KeyPath]:
    """Nodes on a circle, or that lead into one."""
    sorter = TopologicalSorter(graph)
    with suppress(CycleError):  # it still hands out what no circle blocks
        sorter.prepare()
    free: set[KeyPath] = set()
    while ready := sorter.get_ready():
        free.update(ready)
        sorter.done(*ready)
    return set(graph) - free
