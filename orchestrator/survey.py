"""A document as a checked value, or everything that is wrong with it in one go.

Where types fail, the checks still run on what is there: a *partial* value, in which a broken field is absent and
reading it raises AttributeError. A check that touches one is abandoned: nothing is concluded from what was not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.documents import Document
from orchestrator.errors import OrchestratorError, Problem
from orchestrator.faults import broken_by, faults_in
from orchestrator.kinds import Kind, kind_of
from orchestrator.validation import problems_of
from orchestrator.yaml_nodes import KeyPath

ModelT = TypeVar("ModelT", bound=BaseModel)
Check = Callable[[ModelT], Iterable[Problem]]
"""A rule over a whole value; the `where` of its problems is a dotted key. It reads fields as late as it can."""


@dataclass(frozen=True)
class Survey(Generic[ModelT]):
    """What could be read of a document, and everything that is wrong with it, in the order of the file."""

    value: ModelT
    """Whole if there are no problems, else partial."""
    problems: tuple[Problem, ...]


def survey(model: type[ModelT], document: Document, checks: Sequence[Check[ModelT]]) -> Survey[ModelT]:
    """Read `document` as a `model`, and run all `checks` on it, or on what could be read of it."""
    if not document.problems and not document.in_base_sixty:
        try:
            value = model.model_validate(document.data)
        except ValidationError:
            pass
        else:
            return Survey(value, document.placed(problem for check in checks for problem in check(value)))
    faults = faults_in(model, document)
    broken = broken_by(faults) | document.unread
    partial = _nothing_of(model) if () in broken else _partial_model(model, document.data, (), broken)
    found = (problem for check in checks for problem in cautious(check)(partial))
    return Survey(partial, document.placed((*document.problems, *problems_of(faults), *found)))


def surveyed(
    model: type[ModelT], document: Document, checks: Sequence[Check[ModelT]], error: type[OrchestratorError]
) -> ModelT:
    """`document` as a `model` that passes all `checks`.

    Raises `error` with every problem of the text, the types and the checks, in the order of the file.
    """
    result = survey(model, document, checks)
    if result.problems:
        raise error(result.problems)
    return result.value


def cautious(check: Check[ModelT]) -> Check[ModelT]:
    """The same check, abandoned where it touches something absent: that has been told already."""

    def checked(value: ModelT) -> Iterator[Problem]:
        try:
            yield from check(value)
        except AttributeError:
            return

    return checked


def readable(value: BaseModel, *names: str) -> bool:
    """Whether all these fields, by their dotted names, are there in what may be a partial value."""
    try:
        attrgetter(*names)(value)
    except AttributeError:
        return False
    return True


class _Absent(Exception):
    """There is nothing to build a value from."""


def _partial(kind: Kind, value: Any, path: KeyPath, broken: set[KeyPath]) -> Any:
    """`value` as its kind without validation; raises _Absent where it is broken itself."""
    if path in broken:
        raise _Absent
    if kind.is_model and isinstance(value, dict):
        return _partial_model(kind.type, value, path, broken)
    arguments = get_args(kind.type)
    if get_origin(kind.type) is dict and isinstance(value, dict):
        below = kind_of(arguments[1])
        return {key: _entry(below, item, (*path, key), broken) for key, item in value.items()}
    if get_origin(kind.type) is tuple and isinstance(value, list):
        below = kind_of(arguments[0])
        return tuple(_entry(below, item, (*path, index), broken) for index, item in enumerate(value))
    return value


def _entry(kind: Kind, value: Any, path: KeyPath, broken: set[KeyPath]) -> Any:
    """The same for an entry of a list or mapping: a broken section is there, with nothing in it."""
    return _nothing_of(kind.type) if kind.is_model and path in broken else _partial(kind, value, path, broken)


def _nothing_of(model: type[ModelT]) -> ModelT:
    made = model.model_construct()
    made.__dict__.clear()
    return made


def _partial_model(model: type[ModelT], value: dict[str, Any], path: KeyPath, broken: set[KeyPath]) -> ModelT:
    good: dict[str, Any] = {}
    absent: list[str] = []
    for name, field in model.model_fields.items():
        here = (*path, name)
        try:
            if here in broken:
                raise _Absent
            if name in value:
                good[name] = _partial(kind_of(field.annotation, field=field), value[name], here, broken)
        except _Absent:
            absent.append(name)
    made = model.model_construct(**good)
    for name in absent:
        made.__dict__.pop(name, None)
    return made
