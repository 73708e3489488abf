"""`${...}` in a recipe. The only import of OmegaConf, and only when there is something to insert.

`${a.b}` inserts another value of the recipe. `${plan.X}` stays as it is, for the launch to fill in, and may stand in
`command` alone. `${oc.env:X}` may stand under `env` alone, and stays as it is too: its value goes into the job's
environment and nowhere else, so that no secret reaches a recipe, a fingerprint, a log or the tracker.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from orchestrator.documents import Document
from orchestrator.errors import Problem, did_you_mean
from orchestrator.kinds import kind_at
from orchestrator.recipe.plan_names import PLAN_NAMES
from orchestrator.recipe.references import Dependencies, references
from orchestrator.recipe.schema import Recipe
from orchestrator.yaml_nodes import KeyPath, dotted

_START = re.compile(r"(?P<escape>\\*)\$\{\s*(?P<name>[^\s${}:,]*)\s*(?P<colon>:?)")
_LITERAL = re.compile(r"\$\{(?=\s*(?:plan\.|oc\.env\s*:))")


_Told = dict[KeyPath, list[Problem]]
"""What is wrong with texts, by their paths; nothing where a text only hangs on what could not be read."""


def interpolated(document: Document) -> Document:
    """`document` with every `${a.b}` replaced, and with the problems of those that cannot be.

    A text that cannot be resolved, or that hangs on a value that could not be read, stays as it is and is unread.
    """
    texts = dict(_interpolations(document.data))
    told = _all_refused(texts)
    waiting = {path: text for path, text in texts.items() if path not in told and not _is_literal(text)}
    if waiting:
        told |= _ungrammatical(waiting)
        told |= _leading_nowhere(_without(waiting, told), document, told)
        data, failed = _resolved(document.data, _without(waiting, told), told)
        document = replace(document, data=data)
        told |= failed
        told |= _all_refused(_without(dict(_interpolations(data)), told))
    return document.refusing(chain(*told.values()), told) if told else document


def _without(texts: Mapping[KeyPath, str], told: _Told) -> dict[KeyPath, str]:
    return {path: text for path, text in texts.items() if path not in told}


def _is_literal(text: str) -> bool:
    """Whether nothing in it is to be replaced here."""
    return text.count("${") == len(_LITERAL.findall(text))


def _all_refused(texts: Mapping[KeyPath, str]) -> _Told:
    return {path: found for path, text in texts.items() if (found := list(_refused(path, text)))}


def _interpolations(data: Any) -> list[tuple[KeyPath, str]]:
    """(path, text) of every text in `data` that holds an interpolation."""
    found: list[tuple[KeyPath, str]] = []

    def look(path: KeyPath, leaf: Any) -> None:
        if isinstance(leaf, str) and "${" in leaf:
            found.append((path, leaf))

    mapped(data, look)
    return found


def _refused(path: KeyPath, text: str) -> Iterator[Problem]:
    """What may not stand in `text`, before anything is inserted."""
    for match in _START.finditer(text):
        name = match["name"]
        if match["escape"]:
            yield Problem(dotted(path), "a backslash before ${ is not read", "write the text without ${")
        elif match["colon"] and name != "oc.env":
            yield Problem(
                dotted(path), f"the resolver {name!r} is not known", "write ${section.key}, or ${oc.env:NAME} under env"
            )
        elif match["colon"] and path[0] != "env":
            fix = "put it under env.variables, and read the variable in your code"
            yield Problem(dotted(path), "${oc.env:...} is allowed under env and nowhere else", fix)
        elif name.startswith("plan.") and not text.startswith(f"${{{name}}}", match.start()):
            yield Problem(dotted(path), f"{text!r} is not an interpolation", "write ${plan.NAME}, without spaces")
        elif name.startswith("plan."):
            yield from _refused_plan_name(path, name.removeprefix("plan."))


def _refused_plan_name(path: KeyPath, name: str) -> Iterator[Problem]:
    if path[0] != "command":
        yield Problem(dotted(path), "${plan...} is allowed in command and nowhere else", "write the value itself")
    elif name not in PLAN_NAMES:
        yield Problem(dotted(path), f"the plan has no {name!r}", did_you_mean(name, PLAN_NAMES))


def _ungrammatical(texts: Mapping[KeyPath, str]) -> _Told:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    told: _Told = {}
    for path, text in texts.items():
        try:
            OmegaConf.create([_guarded(text)])
        except OmegaConfBaseException:
            told[path] = [Problem(dotted(path), f"{text!r} is not an interpolation", "write ${section.key}")]
    return told


def _leading_nowhere(texts: Mapping[KeyPath, str], document: Document, told: _Told) -> _Told:
    """Texts that name what is not there, insert themselves, or hang on one that was `told` or could not be read."""
    named = list(references(texts, document.data))
    found: _Told = {}
    for reference in named:
        if any(_meet(reference.path, path) for path in document.unread):
            found.setdefault(reference.holder, [])
        elif not reference.is_there:
            problems = [] if reference.is_misspelt_there else [reference.missing()]
            found.setdefault(reference.holder, []).extend(problems)
    hanging = Dependencies({*texts, *told}, named)
    for path in hanging.circular():
        problem = Problem(dotted(path), f"{texts[path]!r} leads back to itself", "write one of the values out")
        found.setdefault(path, []).append(problem)
    return {path: found.get(path, []) for path in hanging.hanging_on({*found, *told}) if path not in told}


def _meet(one: KeyPath, other: KeyPath) -> bool:
    """Whether one of two paths is the other, or lies above it."""
    return all(a == b for a, b in zip(one, other, strict=False))


def _guarded(text: str) -> str:
    """`text` whose plan and environment interpolations OmegaConf leaves as they are."""
    return _LITERAL.sub(r"\\${", text)


def _resolved(data: Any, texts: Mapping[KeyPath, str], told: _Told) -> tuple[Any, _Told]:
    """`data` with every one of `texts` replaced, without a look at those `told`; and what is wrong with them still."""
    from omegaconf import OmegaConf

    def guarded(path: KeyPath, leaf: Any) -> Any:
        return None if path in told else _guarded(leaf) if isinstance(leaf, str) else leaf

    config, failed = OmegaConf.create(mapped(data, guarded)), _Told()
    return mapped(data, lambda path, leaf: _looked_up(config, path, failed) if path in texts else leaf), failed


def mapped(value: Any, change: Callable[[KeyPath, Any], Any], path: KeyPath = ()) -> Any:
    """The same mappings and lists as `value`, with every scalar as `change(path, scalar)` has it."""
    if isinstance(value, dict):
        return {key: mapped(item, change, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [mapped(item, change, (*path, index)) for index, item in enumerate(value)]
    return change(path, value)


def _looked_up(config: Any, path: KeyPath, failed: _Told) -> Any:
    """What OmegaConf finds at `path`; as text where the recipe wants text."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = functools.reduce(operator.getitem, path, config)
        found = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    except (OmegaConfBaseException, RecursionError) as error:
        what = str(error).partition("\n")[0] or "nested without end"
        fix = "name a key that stands in the recipe or in an override; defaults cannot be inserted"
        failed[path] = [Problem(dotted(path), what[0].lower() + what[1:], fix)]
        return None
    kind = kind_at(Recipe, path)
    as_text = kind is not None and kind.is_text and isinstance(found, bool | int | float)
    return str(found) if as_text else found


def from_environment(document: Document) -> Document:
    """`document`, already interpolated, with the values of its `${oc.env:X}`, and with a problem for each unset one.

    The data holds secrets: it is for the job's environment only.
    """
    texts = [(path, text) for path, text in _interpolations(document.data) if path[0] == "env"]
    told: _Told = {}
    values = {path: _environment_text(path, text, told) for path, text in texts if path not in document.unread}
    data = mapped(document.data, lambda path, leaf: values.get(path, leaf)) if values else document.data
    return replace(document, data=data).refusing(chain(*told.values()), told)


def _environment_text(path: KeyPath, text: str, told: _Told) -> str:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.create([text])[0]
    except OmegaConfBaseException as error:
        unset = re.search(r"variable '([^']+)' not found", str(error))
        what = f"the environment variable {unset[1]} is not set" if unset else str(error).partition("\n")[0]
        fix = "export it before you start, or give a default: ${oc.env:NAME,default}"
        told[path] = [Problem(dotted(path), what, fix)]
        return ""
    return "" if value is None else str(value)
