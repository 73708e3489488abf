"""`${...}` in a recipe. The only import of OmegaConf, and only when there is something to insert.

`${a.b}` inserts another value of the recipe. `${plan.X}` stays as it is, for the launch to fill in, and may stand in
`command` alone. `${oc.env:X}` may stand under `env` alone, and stays as it is too: its value goes into the job's
environment and nowhere else, so that no secret reaches a recipe, a fingerprint, a log or the tracker.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from orchestrator.documents import Document, KeyPath, dotted
from orchestrator.errors import Problem, RecipeError, did_you_mean
from orchestrator.kinds import kind_at
from orchestrator.recipe.plan_names import PLAN_NAMES
from orchestrator.recipe.schema import Recipe

_START = re.compile(r"(?P<escape>\\*)\$\{\s*(?P<name>[^\s${}:,]*)\s*(?P<colon>:?)")
_LITERAL = re.compile(r"\$\{(?=\s*(?:plan\.|oc\.env\s*:))")


def interpolated(document: Document) -> Document:
    """`document` with every `${a.b}` replaced; with problems, no value that holds one counts as read."""
    texts = _interpolations(document.data)
    if not texts:
        return document
    problems = [problem for path, text in texts for problem in _refused(path, text)]
    if not problems and all(text.count("${") == len(_LITERAL.findall(text)) for _, text in texts):
        return document
    problems = problems or _ungrammatical(texts)
    if not problems:
        document = replace(document, data=_resolved(document.data, problems))
        inserted = _interpolations(document.data)
        problems = problems or [problem for path, text in inserted for problem in _refused(path, text)]
    if not problems:
        return document
    told = (*document.problems, *document.placed(problems))
    return replace(document, problems=told, unread=document.unread | {path for path, _ in texts})


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


def _ungrammatical(texts: list[tuple[KeyPath, str]]) -> list[Problem]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    problems = []
    for path, text in texts:
        try:
            OmegaConf.create([_guarded(text)])
        except OmegaConfBaseException:
            problems.append(Problem(dotted(path), f"{text!r} is not an interpolation", "write ${section.key}"))
    return problems


def _guarded(text: str) -> str:
    """`text` whose plan and environment interpolations OmegaConf leaves as they are."""
    return _LITERAL.sub(r"\\${", text)


def _resolved(data: Any, problems: list[Problem]) -> Any:
    from omegaconf import OmegaConf

    config = OmegaConf.create(mapped(data, lambda path, leaf: _guarded(leaf) if isinstance(leaf, str) else leaf))

    def insert(path: KeyPath, leaf: Any) -> Any:
        return _looked_up(config, path, problems) if isinstance(leaf, str) and "${" in leaf else leaf

    return mapped(data, insert)


def mapped(value: Any, change: Callable[[KeyPath, Any], Any], path: KeyPath = ()) -> Any:
    """The same mappings and lists as `value`, with every scalar as `change(path, scalar)` has it."""
    if isinstance(value, dict):
        return {key: mapped(item, change, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [mapped(item, change, (*path, index)) for index, item in enumerate(value)]
    return change(path, value)


def _looked_up(config: Any, path: KeyPath, problems: list[Problem]) -> Any:
    """What OmegaConf finds at `path`; as text where the recipe wants text."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = functools.reduce(operator.getitem, path, config)
        found = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    except (OmegaConfBaseException, RecursionError) as error:
        what = str(error).partition("\n")[0] or "nested without end"
        fix = "name a key that stands in the recipe or in an override; defaults cannot be inserted"
        problems.append(Problem(dotted(path), what[0].lower() + what[1:], fix))
        return None
    kind = kind_at(Recipe, path)
    as_text = kind is not None and kind.is_text and isinstance(found, bool | int | float)
    return str(found) if as_text else found


def from_environment(document: Document) -> Document:
    """`document`, already interpolated, with the values of its `${oc.env:X}`. Raises RecipeError for unset ones.

    The result holds secrets: it is for the job's environment only.
    """
    problems: list[Problem] = []
    texts = [(path, text) for path, text in _interpolations(document.data) if path[0] == "env"]
    values = {path: _environment_text(path, text, problems) for path, text in texts}
    if problems:
        raise RecipeError(document.placed(problems))
    return replace(document, data=mapped(document.data, lambda path, leaf: values.get(path, leaf)))


def _environment_text(path: KeyPath, text: str, problems: list[Problem]) -> str:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.create([text])[0]
    except OmegaConfBaseException as error:
        unset = re.search(r"variable '([^']+)' not found", str(error))
        what = f"the environment variable {unset[1]} is not set" if unset else str(error).partition("\n")[0]
        fix = "export it before you start, or give a default: ${oc.env:NAME,default}"
        problems.append(Problem(dotted(path), what, fix))
        return ""
    return "" if value is None else str(value)
