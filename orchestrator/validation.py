"""The faults of a document in plain words: what is wrong, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import AfterValidator

from orchestrator.errors import Problem, did_you_mean, nearest
from orchestrator.faults import LIMITS, Fault
from orchestrator.kinds import Kind
from orchestrator.patterns import WORDS
from orchestrator.yaml_nodes import dotted, plain

_LONG = 60
"""Characters of a text or number that are shown in a message."""


def problems_of(faults: Sequence[Fault]) -> Iterator[Problem]:
    """Each fault in plain words; the `where` of its problem is a dotted key."""
    return (Problem(dotted(fault.path), *_told(fault)) for fault in faults)


def short(limit: float) -> str:
    """A limit as people write it: no decimals where there are none."""
    if isinstance(limit, int):
        return f"{limit:,}"
    return f"{limit:,.0f}" if limit.is_integer() else f"{limit:g}"


def _told(fault: Fault) -> tuple[str, str]:
    """(what, fix)."""
    tell = _TELL.get(fault.kind)
    return tell(fault) if tell else (fault.message, _advice(fault, f"write {fault.wanted.words}"))


def _meaning(fault: Fault) -> str:
    """What the key is for, from the model's description."""
    text = (fault.wanted.field.description or "") if fault.wanted.field else ""
    return text.rstrip(".")


def _advice(fault: Fault, text: str) -> str:
    return f"{text}: {_meaning(fault)}" if _meaning(fault) else text


def _shown(fault: Fault) -> str:
    """What was found, as it was written."""
    value, written = fault.found, fault.written
    names = {type(None): "nothing", dict: "a mapping", list: "a list", tuple: "a list"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, str):
        return f"{written}, which YAML reads as text" if written else _quoted(value)
    if isinstance(value, bool):
        text = str(value).lower()
        return (
            f"unquoted {written}, which YAML reads as {text}"
            if written not in ("", text)
            else f"the truth value {text}"
        )
    if ":" in written:
        return f"unquoted {written}, which YAML reads as the number {value}"
    return f"the number {written or value}"


def _quoted(text: str) -> str:
    return f"the text {text!r}" if len(text) <= _LONG else f"the text {text[:57]!r}..."


def _tell_missing(fault: Fault) -> tuple[str, str]:
    if isinstance(fault.path[-1], int):
        return f"value {fault.path[-1] + 1} of the list is missing", f"write {fault.wanted.words} there"
    examples = (fault.wanted.field.examples if fault.wanted.field else None) or ["..."]
    return "missing", _advice(fault, f"write '{fault.path[-1]}: {examples[0]}'")


def _tell_unknown(fault: Fault) -> tuple[str, str]:
    return f"unknown key {fault.path[-1]!r}", did_you_mean(str(fault.path[-1]), fault.siblings)


def _tell_choice(fault: Fault) -> tuple[str, str]:
    choices = get_args(fault.wanted.type)
    if isinstance(fault.found, str):
        return f"unknown value {fault.found!r}", did_you_mean(fault.found, choices)
    fix = f'put the value in quotes: "{fault.written}"' if fault.written in choices else f"choose {fault.wanted.words}"
    return f"text is wanted, found {_shown(fault)}", fix


def _tell_text(fault: Fault) -> tuple[str, str]:
    if not isinstance(fault.found, bool | int | float):
        return _tell_type(fault)
    text = fault.written or str(fault.found)
    return f"text is wanted, found {_shown(fault)}", _refusal(fault.wanted, text) or (
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


def _tell_type(fault: Fault) -> tuple[str, str]:
    """Something of another type; a word that is near one of a union's choices was probably meant to be that."""
    near = nearest(fault.found, fault.wanted.choices) if isinstance(fault.found, str) else None
    fix = f"did you mean {near!r}?" if near else _type_advice(fault)
    return f"{fault.wanted.words} is wanted, found {_shown(fault)}", fix


def _type_advice(fault: Fault) -> str:
    origin = get_origin(fault.wanted.type) or fault.wanted.type
    meant = _number_in(fault.found, whole=float not in fault.wanted.types)
    if meant and {int, float}.intersection(fault.wanted.types):
        return meant
    if origin is bool and isinstance(fault.found, str) and isinstance(plain(fault.found), bool):
        return f"take the quotes away: {fault.found}"
    if origin is tuple:
        return _advice(fault, "write a list: [first, second]")
    if fault.wanted.keys:
        return f"write keys below it, of: {', '.join(fault.wanted.keys)}"
    return _advice(fault, f"write {fault.wanted.words}")


def _number_in(found: Any, *, whole: bool) -> str:
    """What to write where `found` is a number in a form that is not read; '' where it is none."""
    if isinstance(found, float) and whole and found.is_integer():
        return f"write {int(found)}"
    if not isinstance(found, str):
        return ""
    if re.fullmatch(r"[-+]?0[0-9_]+", found):
        octal = "" if set("89") & set(found) else f", or {int(found, 8)} if it is meant to be octal"
        return f"write {int(found)}{octal}"
    if re.fullmatch(r"0[ob][0-7_]+", found):
        return f"write {int(found, 0)}"
    if re.fullmatch(r"\d{1,3}(,\d{3})+", found):
        return f"write {found.replace(',', '')}"
    if re.fullmatch(r"\d+(\.\d+)?\s*%", found) and not whole:
        return f"write {float(found.rstrip('% ')) / 100:g}"
    number = plain(found)
    fits = type(number) is int or (type(number) is float and not whole)
    return f"take the quotes away: {found}" if fits and ":" not in found else ""


def _tell_limit(fault: Fault) -> tuple[str, str]:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = " and ".join(f"{words[name]} {short(fault.context[name])}" for name in words if name in fault.context)
    fix = _advice(fault, f"write {fault.wanted.words} in that range")
    found = fault.written or str(fault.found)
    return f"must be {limits}, found {found if len(found) <= _LONG else f'a number of {len(found)} characters'}", fix


def _tell_pattern(fault: Fault) -> tuple[str, str]:
    allowed = WORDS.get(fault.context["pattern"], "another form")
    return f"{_quoted(fault.found)} does not fit here", f"write {allowed}"


def _tell_value(fault: Fault) -> tuple[str, str]:
    return f"{_quoted(fault.found)} cannot be read", str(fault.context["error"])


def _tell_length(fault: Fault) -> tuple[str, str]:
    wanted = f"{len(get_args(fault.wanted.type))} values"
    return f"{wanted} are wanted, found {len(fault.found)}", _advice(fault, f"write {wanted}")


def _tell_infinite(fault: Fault) -> tuple[str, str]:
    return f"a finite number is wanted, found {fault.written or fault.found}", _advice(fault, "write a number")


def _tell_base_sixty(fault: Fault) -> tuple[str, str]:
    if fault.wanted.type is Any:
        return _shown(fault), f'put the value in quotes: "{fault.written}"; or write {fault.found}, if that is meant'
    return f"{fault.wanted.words} is wanted, found {_shown(fault)}", f"write {fault.found}, if that is meant"


_TELL: Mapping[str, Callable[[Fault], tuple[str, str]]] = {
    "missing": _tell_missing,
    "extra_forbidden": _tell_unknown,
    "literal_error": _tell_choice,
    "string_type": _tell_text,
    "string_pattern_mismatch": _tell_pattern,
    "value_error": _tell_value,
    "finite_number": _tell_infinite,
    "too_long": _tell_length,
    "base_sixty": _tell_base_sixty,
    "union": _tell_type,
    **dict.fromkeys(("int_type", "float_type", "bool_type", "model_type", "tuple_type", "dict_type"), _tell_type),
    **dict.fromkeys(LIMITS, _tell_limit),
}
