"""What a pydantic model refuses, told as what to write instead: every error at once, each with its place."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from orchestrator.documents import Document, KeyPath, dotted
from orchestrator.errors import OrchestratorError, Problem, did_you_mean
from orchestrator.patterns import WORDS

ModelT = TypeVar("ModelT", bound=BaseModel)


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
    def keys(self) -> tuple[str, ...]:
        """The keys that may stand in it, where they are fixed."""
        return tuple(self.type.model_fields) if self.is_model else ()

    @property
    def words(self) -> str:
        """What is wanted, as a person would say it."""
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
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
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


def validated(model: type[ModelT], document: Document, error: type[OrchestratorError]) -> ModelT:
    """`document` as a `model`. Raises `error` with every problem, in the order of the file."""
    try:
        return model.model_validate(document.data)
    except ValidationError as fault:
        raise error(problems_from(fault, document, model)) from None


def problems_from(error: ValidationError, document: Document, model: type[BaseModel]) -> tuple[Problem, ...]:
    """Every problem in `error`, told in plain words, in the order of the file."""
    faults = [_Fault.of(detail, document, model) for detail in error.errors(include_url=False)]
    misspelt = {(fault.path[:-1], fault.near) for fault in faults if fault.kind == "extra_forbidden"}
    told = [fault for fault in faults if fault.kind != "missing" or (fault.path[:-1], fault.path[-1]) not in misspelt]
    return document.placed(Problem(dotted(fault.path), *fault.told()) for fault in told)


@dataclass(frozen=True)
class _Fault:
    """One of pydantic's errors, with the model's side and the document's side of it."""

    kind: str
    path: KeyPath
    found: Any
    context: Mapping[str, Any]
    message: str
    written: str
    wanted: Kind
    siblings: tuple[str, ...]

    @classmethod
    def of(cls, detail: Mapping[str, Any], document: Document, model: type[BaseModel]) -> _Fault:
        path = tuple(key for key in detail["loc"] if key != "[key]")
        above = kind_at(model, path[:-1]) if path else None
        return cls(
            kind=detail["type"],
            path=path,
            found=detail["input"],
            context=detail.get("ctx", {}),
            message=detail["msg"],
            written=document.written.get(path, ""),
            wanted=kind_at(model, path) or Kind(Any),
            siblings=above.keys if above else (),
        )

    @property
    def near(self) -> str:
        """The key that was probably meant; '' when none is near."""
        advice = did_you_mean(str(self.path[-1]), self.siblings)
        return advice.split("'")[1] if advice.startswith("did you mean") else ""

    def told(self) -> tuple[str, str]:
        """(what, fix)."""
        tell = _TELL.get(self.kind)
        return tell(self) if tell else (self.message, self.meaning())

    def meaning(self) -> str:
        """What the key is for, from the model's description."""
        text = (self.wanted.field.description or "") if self.wanted.field else ""
        return text.rstrip(".")

    def advice(self, text: str) -> str:
        return f"{text}: {self.meaning()}" if self.meaning() else text


def _shown(value: Any, written: str = "") -> str:
    names = {type(None): "nothing", dict: "a mapping", list: "a list", tuple: "a list"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, bool):
        text = str(value).lower()
        return (
            f"unquoted {written}, which YAML reads as {text}"
            if written not in ("", text)
            else f"the truth value {text}"
        )
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}..."
    if ":" in written:
        return f"unquoted {written}, which YAML reads as the number {value}"
    return f"the number {written or value}"


def _tell_missing(fault: _Fault) -> tuple[str, str]:
    examples = (fault.wanted.field.examples if fault.wanted.field else None) or ["..."]
    return "missing", fault.advice(f"write '{fault.path[-1]}: {examples[0]}'")


def _tell_unknown(fault: _Fault) -> tuple[str, str]:
    return f"unknown key {fault.path[-1]!r}", did_you_mean(str(fault.path[-1]), fault.siblings)


def _tell_choice(fault: _Fault) -> tuple[str, str]:
    if not isinstance(fault.found, str):
        return _tell_type(fault)
    return f"unknown value {fault.found!r}", did_you_mean(fault.found, get_args(fault.wanted.type))


def _tell_text(fault: _Fault) -> tuple[str, str]:
    if not isinstance(fault.found, bool | int | float):
        return _tell_type(fault)
    text = fault.written or str(fault.found)
    return f"text is wanted, found {_shown(fault.found, fault.written)}", _refusal(fault.wanted, text) or (
        f'put the value in quotes: "{text}"'
    )


def _refusal(wanted: Kind, text: str) -> str:
    """What the field would say to `text`, were it quoted; '' if it would take it."""
    for check in wanted.checks:
        pattern = getattr(check, "pattern", None)
        if pattern is not None and not re.match(pattern, text):
            return f"write {WORDS[pattern]}"
        if isinstance(check, AfterValidator):
            try:
                check.func(text)  # type: ignore[call-arg]
            except ValueError as fault:
                return str(fault)
    return ""


def _tell_type(fault: _Fault) -> tuple[str, str]:
    what = f"{fault.wanted.words} is wanted, found {_shown(fault.found, fault.written)}"
    if get_origin(fault.wanted.type) is Literal:
        what = f"{_shown(fault.found, fault.written)} does not fit here"
    return what, _type_advice(fault)


def _type_advice(fault: _Fault) -> str:
    origin = get_origin(fault.wanted.type) or fault.wanted.type
    if origin in (int, float) and isinstance(fault.found, str) and _is_number(fault.found, origin):
        return f"take the quotes away: {fault.found}"
    if origin is int and isinstance(fault.found, float) and fault.found.is_integer():
        return f"write {int(fault.found)}"
    if origin is tuple:
        return fault.advice("write a list: [first, second]")
    if origin is Literal:
        return f"choose {fault.wanted.words}"
    if fault.wanted.keys:
        return f"write keys below it, of: {', '.join(fault.wanted.keys)}"
    return fault.advice(f"write {fault.wanted.words}")


def _is_number(text: str, number: Callable[[str], Any]) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def short(limit: float) -> str:
    """A limit as people write it: no decimals where there are none."""
    return f"{limit:,.0f}" if limit == int(limit) else f"{limit:g}"


def _tell_limit(fault: _Fault) -> tuple[str, str]:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = " and ".join(f"{words[name]} {short(fault.context[name])}" for name in words if name in fault.context)
    return f"must be {limits}, found {fault.written or fault.found}", fault.advice(
        f"write {fault.wanted.words} in that range"
    )


def _tell_pattern(fault: _Fault) -> tuple[str, str]:
    allowed = WORDS.get(fault.context["pattern"], "another form")
    return f"{_shown(fault.found)} does not fit here", f"write {allowed}"


def _tell_value(fault: _Fault) -> tuple[str, str]:
    return f"{_shown(fault.found)} cannot be read", str(fault.context["error"])


def _tell_length(fault: _Fault) -> tuple[str, str]:
    return f"{len(get_args(fault.wanted.type))} values are wanted, found {len(fault.found)}", fault.meaning()


def _tell_infinite(fault: _Fault) -> tuple[str, str]:
    return f"a finite number is wanted, found {fault.written or fault.found}", fault.advice("write a number")


_TELL: Mapping[str, Callable[[_Fault], tuple[str, str]]] = {
    "missing": _tell_missing,
    "extra_forbidden": _tell_unknown,
    "literal_error": _tell_choice,
    "string_type": _tell_text,
    "string_pattern_mismatch": _tell_pattern,
    "value_error": _tell_value,
    "finite_number": _tell_infinite,
    "too_long": _tell_length,
    **dict.fromkeys(("int_type", "float_type", "bool_type", "model_type", "tuple_type", "dict_type"), _tell_type),
    **dict.fromkeys(("greater_than_equal", "greater_than", "less_than_equal", "less_than"), _tell_limit),
}
