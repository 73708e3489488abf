"""Print docs/recipe.md, made from the recipe's schema: `python docs/generate_recipe.py > docs/recipe.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.field_types import LARGEST, MOST
from orchestrator.kinds import Kind, kind_of
from orchestrator.patterns import WORDS
from orchestrator.recipe.plan_names import PLAN_NAMES
from orchestrator.recipe.schema import Recipe
from orchestrator.validation import short

HEAD = """\
# Recipe reference

<!-- Made by docs/generate_recipe.py from orchestrator/recipe/schema.py; a test compares them. -->

A recipe is a YAML file that says what to train, on what, and with which effective batch. Unknown keys are refused.
A type is never guessed: text that YAML would turn into something else (`2:00:00`, `no`, `12`) stands in quotes, and
`1e-3` is a number. A key may stand once; merge keys (`<<`), tags and keys that are not text are refused.

**Overrides.** `--set optimizer.lr=1e-3` sets one value, `--set datasets.0.num_samples=500` one in a list. A mapping
is merged into what stands there, anything else replaces it. What is given for a text field is taken as it is
(`--set resources.walltime=2:00:00`, no quotes); `null` empties a field that may be empty.

**Interpolation.** `${optimizer.lr}` inserts another value that stands in the recipe. `${oc.env:NAME}` and
`${oc.env:NAME,default}` insert an environment variable, under `env` and nowhere else; the value goes into the job's
environment and is never stored. `${plan.NAME}` inserts what was planned, in `command` and nowhere else:
"""


def reference() -> str:
    """The whole page."""
    names = [f"| `{name}` | {meaning} |" for name, meaning in PLAN_NAMES.items()]
    lines = [HEAD, "| `${plan.NAME}` | |", "|---|---|", *names, "", *_section("The recipe", Recipe)]
    titles: dict[type[BaseModel], list[str]] = {}
    for title, model in _models_below("", Recipe):
        titles.setdefault(model, []).append(f"`{title}`")
    for model, where in titles.items():
        lines += _section(", ".join(where), model)
    return "\n".join(lines)


def _models_below(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """(dotted key, model) of every section, in the order of the schema."""
    for name, field in model.model_fields.items():
        kind, suffix = kind_of(field.annotation), ""
        if get_origin(kind.type) in (tuple, dict):
            suffix = "[]" if get_origin(kind.type) is tuple else ".NAME"
            kind = kind_of(get_args(kind.type)[0 if suffix == "[]" else 1])
        if kind.is_model:
            yield f"{prefix}{name}{suffix}", kind.type
            yield from _models_below(f"{prefix}{name}{suffix}.", kind.type)


def _section(title: str, model: type[BaseModel]) -> list[str]:
    meaning = " ".join((model.__doc__ or "").split())
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    return [f"## {title}", "", meaning, "", "| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows, ""]


def _row(name: str, field: FieldInfo) -> str:
    kind = kind_of(field.annotation, field=field)
    cells = (f"`{name}`", _type(kind), _default(field), field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(kind: Kind) -> str:
    """What may stand there; the bounds that only keep numbers finite are left out."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = [
        f"{words[name]} {short(value)}"
        for check in kind.checks
        for name in words
        if (value := getattr(check, name, None)) not in (None, MOST, LARGEST)
    ]
    pattern = next((check.pattern for check in kind.checks if getattr(check, "pattern", None)), None)
    details = WORDS[pattern] if pattern else " and ".join(limits)
    return f"{kind.words} ({details})" if details else kind.words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_defaults=True)
        return f"`{given}`".replace("'", "") if given else "below"
    if value is None or value in ((), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else list(value) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
