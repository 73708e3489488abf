"""What a pydantic model refuses, told as what to write instead: every error at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ValidationError

from orchestrator.documents import Document, KeyPath, dotted
from orchestrator.errors import Problem, did_you_mean
from orchestrator.kinds import Kind, kind_at
from orchestrator.patterns import WORDS


def broken_by(error: ValidationError, document: Document, model: type[BaseModel]) -> set[KeyPath]:
    """Every path that `error` says something of, and what a misspelt key was probably meant to be."""
    faults = _faults(error, document, model)
    meant = {(*fault.path[:-1], fault.near) for fault in faults if fault.kind == "extra_forbidden" and fault.near}
    return {fault.path for fault in faults} | meant


def _faults(error: ValidationError, document: Document, model: type[BaseModel]) -> list[_Fault]:
    """The errors at or below what could be read; those of a union's branches as one."""
    found: dict[KeyPath, _Fault] = {}
    for detail in error.errors(include_url=False):
        fault = _Fault.of(detail, document, model)
        if not any(fault.path[: len(path)] == path for path in document.unread):
            kept = found.get(fault.path)
            found[fault.path] = fault if kept is None or kept.kind == "union" else kept
    return list(found.values())


def problems_from(error: ValidationError, document: Document, model: type[BaseModel]) -> tuple[Problem, ...]:
    """Every problem in `error`, told in plain words, in the order of the file."""
    faults = _faults(error, document, model)
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
        kind = detail["type"]
        above = kind_at(model, path[:-1]) if path else None
        if above is not None and above.is_union:
            path = path[:-1]
            above = kind_at(model, path[:-1])
            kind = kind if kind in _LIMITS else "union"
        return cls(
            kind=kind,
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


def _tell_union(fault: _Fault) -> tuple[str, str]:
    what = f"{fault.wanted.words} is wanted, found {_shown(fault.found, fault.written)}"
    if isinstance(fault.found, str) and not _is_number(fault.found, int):
        near = did_you_mean(fault.found, map(str, fault.wanted.choices))
        return what, near if near.startswith("did") else fault.advice(f"write {fault.wanted.words}")
    return what, _type_advice(fault)


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


_LIMITS = ("greater_than_equal", "greater_than", "less_than_equal", "less_than")

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
    "union": _tell_union,
    **dict.fromkeys(_LIMITS, _tell_limit),
}
