"""What may stand at a key of a pydantic model, by its annotations: for messages, overrides and partial values."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Kind:
    """What stands behind an annotation: the bare type, whether None may stand there, and the checks on it."""

    type: Any
    optional: bool = False
    checks: tuple[Any, ...] = ()
    field: FieldInfo | None = None

    @property
    def is_text(self) -> bool:
        choices = get_args(self.type) if get_origin(self.type) is Literal else ()
        return self.type is str or (bool(choices) and all(isinstance(choice, str) for choice in choices))

    @property
    def is_model(self) -> bool:
        return isinstance(self.type, type) and issubclass(self.type, BaseModel)

    @property
    def is_union(self) -> bool:
        return get_origin(self.type) in (Union, types.UnionType)

    @property
    def types(self) -> tuple[Any, ...]:
        """The bare types that may stand there: one, or the members of a union."""
        return tuple(kind_of(part).type for part in get_args(self.type)) if self.is_union else (self.type,)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The words that may stand there, alone or beside other types."""
        return tuple(choice for part in self.types if get_origin(part) is Literal for choice in get_args(part))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that may stand in it, where they are fixed."""
        return tuple(self.type.model_fields) if self.is_model else ()

    @property
    def words(self) -> str:
        """What is wanted, as a person would say it."""
        if self.is_union:
            others = [Kind(part).words for part in self.types if get_origin(part) is not Literal]
            return " or ".join([*others, *map(str, self.choices)])
        if get_origin(self.type) is Literal:
            return f"one of: {', '.join(map(str, get_args(self.type)))}"
        simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Any: "any value"}
        names = {tuple: "a list", list: "a list", dict: "a mapping"}
        return simple.get(self.type) or names.get(get_origin(self.type) or self.type) or "a section of keys"


def kind_of(annotation: Any, *, field: FieldInfo | None = None) -> Kind:
    """An annotation without its `Annotated` and `| None`."""
    optional, checks = False, tuple(field.metadata) if field else ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *extra = get_args(annotation)
            checks += tuple(check for part in extra for check in getattr(part, "metadata", [part]))
        elif get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
            optional = True
            annotation = Union[tuple(arg for arg in get_args(annotation) if arg is not type(None))]  # noqa: UP007
        else:
            return Kind(annotation, optional, checks, field)


def kind_at(model: type[BaseModel], path: Sequence[str | int]) -> Kind | None:
    """What may stand at `path` below `model`; None where the model has no such key."""
    kind = Kind(model)
    for key in path:
        below = _below(kind, key)
        if below is None:
            return None
        kind = below
    return kind


def _below(kind: Kind, key: str | int) -> Kind | None:
    arguments = get_args(kind.type)
    if kind.is_model:
        field = kind.type.model_fields.get(key)
        return kind_of(field.annotation, field=field) if field else None
    if get_origin(kind.type) is dict and len(arguments) == 2:
        return kind_of(arguments[1])
    if get_origin(kind.type) is tuple and isinstance(key, int):
        return kind_of(arguments[0] if Ellipsis in arguments else arguments[min(key, len(arguments) - 1)])
    return Kind(Any) if kind.type is Any else None
