"""`--set a.b=c`: one value of a recipe, given on the command line. Pure.

Mappings are merged into what stands there, anything else replaces it, as OmegaConf.merge does. What is given for a
text field is taken verbatim (`--set resources.walltime=2:00:00`); `null` empties a field that may be empty.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.documents import Document, parse_yaml
from orchestrator.errors import Place, Problem, RecipeError
from orchestrator.kinds import kind_at
from orchestrator.recipe.schema import Recipe
from orchestrator.yaml_nodes import KeyPath, dotted


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """`document` with every `KEY=VALUE` of `overrides` in it, later ones last, and with the problems of those."""
    if not overrides:
        return document
    document = replace(
        document, data=copy.deepcopy(document.data), places=dict(document.places), written=dict(document.written)
    )
    for number, override in enumerate(overrides):
        key = override.partition("=")[0]
        place = Place(f"--set {override}", column=number, key=key)
        try:
            document = _with_override(document, override, place)
        except RecipeError as error:
            document = document.refusing(error.problems, [_meant(key)])
    return document


def _meant(key: str) -> KeyPath:
    """The path that an override which cannot be read was about."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _with_override(document: Document, override: str, place: Place) -> Document:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(Problem.at(place, "", "not of the form KEY=VALUE", "write --set section.key=value"))
    path = _path(document.data, key, place)
    value = _value(text, path, place)
    holder = document.data
    for part in path[:-1]:
        holder = holder[part]
    old = _get(holder, path[-1])
    holder[path[-1]] = merged(old, value.data)
    return _with_places(document, path, place, old, value)


def _path(data: Any, key: str, place: Place) -> KeyPath:
    """The path of dotted `key`; sections that are not there yet are opened on the way."""
    path: KeyPath = ()
    parts = key.split(".")
    for depth, part in enumerate(parts):
        step = _step(data, part, path, place)
        path = (*path, step)
        if depth < len(parts) - 1:
            if _get(data, step) is None:
                data[step] = {}
            data = data[step]
    return path


def _step(data: Any, part: str, path: KeyPath, place: Place) -> str | int:
    """`part` as the key or index it is in `data`."""
    if isinstance(data, dict):
        return part
    if not isinstance(data, list):
        what, fix = f"{dotted(path)} holds a single value", f"write --set {dotted(path)}=VALUE"
        raise RecipeError(Problem.at(place, place.key or "", what, fix))
    if not part.isdecimal() or int(part) >= len(data):
        what = f"{dotted(path)} is a list of {len(data)}, without an entry {part!r}"
        raise RecipeError(Problem.at(place, place.key or "", what, "write the number of an entry, counted from 0"))
    return int(part)


def _get(holder: Any, key: str | int) -> Any:
    return holder.get(key) if isinstance(holder, dict) else holder[key]


def _value(text: str, path: KeyPath, place: Place) -> Document:
    kind = kind_at(Recipe, path)
    if kind is not None and kind.is_text and not (kind.optional and text == "null"):
        return Document(place.source, text, {})
    try:
        return parse_yaml(text, place.source, RecipeError, override=place, above=path)
    except RecipeError as error:
        fix = "write a YAML value; quote what the shell would change"
        problems = (Problem.at(place, place.key or "", problem.what, fix) for problem in error.problems)
        raise RecipeError(problems) from None


def merged(old: Any, new: Any) -> Any:
    """`new` over `old`: mappings key by key, anything else as a whole."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def _with_places(document: Document, path: KeyPath, place: Place, old: Any, value: Document) -> Document:
    """`document` knowing that `path`, where `old` stood, and any section opened for it, comes from an override."""

    def stays(key: KeyPath) -> bool:
        return key[: len(path)] != path or _stays(old, value.data, key[len(path) :])

    opened = (path[:length] for length in range(1, len(path)))
    places = {**dict.fromkeys(opened, place), **{key: at for key, at in document.places.items() if stays(key)}}
    places.update({(*path, *below): place for below in ((), *value.places)})
    written = {key: text for key, text in document.written.items() if stays(key)}
    written.update({(*path, *below): text for below, text in value.written.items()})
    document = replace(document, places=places, written=written)
    return document.refusing(value.problems, [(*path, *below) for below in value.unread])


def _stays(old: Any, new: Any, below: KeyPath) -> bool:
    """Whether what stood at `below` in `old` is still there once `new` is merged over it."""
    for key in below:
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return False
        if key not in new:
            return True
        old, new = old.get(key), new[key]
    return False
