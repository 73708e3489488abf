"""What a pydantic model refuses of a document: every fault at once, by its path. `validation` puts them into words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import getitem
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.documents import Document
from orchestrator.errors import nearest
from orchestrator.kinds import Kind, kind_at
from orchestrator.yaml_nodes import KeyPath

LIMITS = ("greater_than_equal", "greater_than", "less_than_equal", "less_than")
"""Kinds of fault about how large a number is."""

_Paths = Callable[[KeyPath], tuple[KeyPath, KeyPath]]
"""From where pydantic saw something to where it is written, and to where it was meant to be."""


def faults_in(model: type[BaseModel], document: Document) -> tuple[Fault, ...]:
    """Everything in `document` that the types of `model` refuse, each path once; what was told before is left out."""
    found: dict[KeyPath, Fault] = {}
    for fault in (*_refused(model, document.data, _Look(model, document)), *_in_base_sixty(model, document)):
        kept = found.get(fault.path)
        found[fault.path] = fault if kept is None or kept.kind == "union" else kept
    misspelt = {(*fault.path[:-1], fault.near) for fault in found.values() if fault.near}
    return tuple(
        fault
        for fault in found.values()
        if fault.path not in document.unread
        and not (fault.kind == "missing" and (fault.path in misspelt or fault.path[:-1] in document.unread))
    )


def broken_by(faults: Sequence[Fault]) -> set[KeyPath]:
    """Every path that has a fault, and what each misspelt key was probably meant to be."""
    return {fault.path for fault in faults} | {(*fault.meant[:-1], fault.near) for fault in faults if fault.near}


@dataclass(frozen=True)
class _Look:
    """Where one call of pydantic looked: at a whole document, or at a section in it whose key is misspelt."""

    model: type[BaseModel]
    document: Document
    paths: _Paths = lambda path: (path, path)


def _refused(model: type[BaseModel], data: Any, look: _Look) -> Iterator[Fault]:
    """What `model` refuses of `data`; a misspelt section is looked into as the one that was probably meant."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            fault = Fault.of(detail, look)
            yield fault
            if fault.near and isinstance(fault.found, dict | list):
                yield from _refused_below(fault, look)


def _refused_below(misspelt: Fault, look: _Look) -> Iterator[Fault]:
    above = kind_at(look.model, misspelt.meant[:-1])
    assert above is not None, "a key can only be misspelt in a section"
    stands_too = misspelt.near in reduce(getitem, misspelt.path[:-1], look.document.data)

    def paths(path: KeyPath) -> tuple[KeyPath, KeyPath]:
        return (*misspelt.path, *path[1:]), (*misspelt.meant[:-1], *path)

    below = _Look(look.model, look.document, paths)
    for fault in _refused(above.type, {misspelt.near: misspelt.found}, below):
        is_beside = fault.meant[len(misspelt.meant) - 1] != misspelt.near
        if not is_beside and not (stands_too and fault.kind == "missing"):
            yield fault


def _in_base_sixty(model: type[BaseModel], document: Document) -> Iterator[Fault]:
    """Numbers that were written like 1:30, where no text is wanted (pydantic refuses them where it is)."""
    for path in document.in_base_sixty:
        wanted = kind_at(model, path)
        if wanted is not None and not wanted.is_text:
            value = reduce(getitem, path, document.data)
            yield Fault("base_sixty", path, path, value, {}, "", document.written[path], wanted, ())


@dataclass(frozen=True)
class Fault:
    """One of pydantic's errors, with the model's side and the document's side of it."""

    kind: str
    path: KeyPath
    """Where it is written."""
    meant: KeyPath
    """Where it would stand if the keys above it were not misspelt."""
    found: Any
    context: Mapping[str, Any]
    message: str
    written: str
    wanted: Kind
    siblings: tuple[str, ...]

    @classmethod
    def of(cls, detail: Mapping[str, Any], look: _Look) -> Fault:
        path, meant = look.paths(tuple(key for key in detail["loc"] if key != "[key]"))
        kind = detail["type"]
        above = kind_at(look.model, meant[:-1]) if meant else None
        if above is not None and above.is_union:
            path, meant = path[:-1], meant[:-1]
            above = kind_at(look.model, meant[:-1])
            kind = kind if kind in LIMITS else "union"
        return cls(
            kind=kind,
            path=path,
            meant=meant,
            found=detail["input"],
            context=detail.get("ctx", {}),
            message=detail["msg"],
            written=look.document.written.get(path, ""),
            wanted=kind_at(look.model, meant) or Kind(Any),
            siblings=above.keys if above else (),
        )

    @cached_property
    def near(self) -> str | None:
        """The key that an unknown one was probably meant to be; None when none is near."""
        return nearest(str(self.path[-1]), self.siblings) if self.kind == "extra_forbidden" else None
