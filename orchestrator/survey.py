"""A document as a checked value, or everything that is wrong with it in one go.

Where types fail, the checks still run on what is there: a *partial* value, in which a broken field is absent and
reading it raises AttributeError. A check that touches one is abandoned: nothing is concluded from what was not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.documents import Document, KeyPath
from orchestrator.errors import OrchestratorError, Problem
from orchestrator.kinds import Kind, kind_of
from orchestrator.validation import broken_by, problems_from

ModelT = TypeVar("ModelT", bound=BaseModel)
Check = Callable[[ModelT], Iterable[Problem]]
"""A rule over a whole value; the `where` of its problems is a dotted key. It reads fields as late as it can."""


def surveyed(
    model: type[ModelT], document: Document, checks: Sequence[Check[ModelT]], error: type[OrchestratorError]
) -> ModelT:
    """`document` as a `model` that passes all `checks`.

    Raises `error` with every problem of the text, the types and the checks, in the order of the file.
    """
    if not document.problems:
        try:
            value = model.model_validate(document.data)
        except ValidationError:
            pass
        else:
            problems = document.placed(problem for check in checks for problem in check(value))
            if problems:
                raise error(problems)
            return value
    raise error(_all_problems(model, document, checks))


def _all_problems(model: type[ModelT], document: Document, checks: Sequence[Check[ModelT]]) -> tuple[Problem, ...]:
    told, broken = _type_problems(model, document)
    partial = _partial(Kind(model), document.data, (), broken)
    found = (problem for check in checks for problem in _concluded(check, partial))
    problems = dict.fromkeys((*document.problems, *told, *document.placed(found)))
    return tuple(sorted(problems, key=lambda problem: problem.position))


def _type_problems(model: type[BaseModel], document: Document) -> tuple[tuple[Problem, ...], set[KeyPath]]:
    """What the types refuse, and every path from which nothing may be concluded."""
    try:
        model.model_validate(document.data)
    except ValidationError as fault:
        broken = broken_by(fault, document, model) | document.unread
        return problems_from(fault, document, model), broken
    return (), set(document.unread)


def _concluded(check: Check[ModelT], partial: ModelT) -> Iterator[Problem]:
    try:
        yield from check(partial)
    except AttributeError:
        return  # it needs what could not be read, and that has been told


class _Absent(Exception):
    """There is nothing to build a value from."""


def _partial(kind: Kind, value: Any, path: KeyPath, broken: set[KeyPath]) -> Any:
    """`value` as its kind without validation; raises _Absent where it is broken itself."""
    if path in broken and path:
        raise _Absent
    if kind.is_model and isinstance(value, dict):
        return _partial_model(kind.type, value, path, broken)
    arguments = get_args(kind.type)
    if get_origin(kind.type) is dict and isinstance(value, dict):
        below = kind_of(arguments[1])
        return {key: _partial(below, item, (*path, key), broken) for key, item in value.items()}
    if get_origin(kind.type) is tuple and isinstance(value, list):
        below = kind_of(arguments[0])
        return tuple(_partial(below, item, (*path, index), broken) for index, item in enumerate(value))
    return value


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
