"""The JSON Schema (draft 2020-12) of a recipe or a profile, made from the models themselves, for editors. Pure.

An editor sees what is written, before anything is inserted: wherever a value of another form is wanted, a text that
holds `${...}` is right too. What hangs on two keys at once, and on files, `orchestrate plan` alone can say.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from orchestrator.documents import parse_yaml
from orchestrator.errors import OrchestratorError

Kind = Literal["recipe", "profile"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
INTERPOLATION = "Interpolation"
_REFERENCE = {"$ref": f"#/$defs/{INTERPOLATION}"}
_ANNOTATIONS = ("description", "default", "examples")
_OF_NAMES = ("properties", "patternProperties", "$defs")
_OF_SCHEMAS = ("anyOf", "prefixItems")
_OF_SCHEMA = ("items", "additionalProperties")


def json_schema(kind: Kind) -> dict[str, Any]:
    """The schema of a whole file; equal models give equal text, keys in the order of the models."""
    from orchestrator.cluster import Cluster
    from orchestrator.recipe.schema import Recipe

    model: type[BaseModel] = Recipe if kind == "recipe" else Cluster
    made = _tidied(model.model_json_schema())
    if kind == "recipe":
        for part in (made, *made["$defs"].values()):
            part["properties"] = {name: _or_interpolation(value) for name, value in part["properties"].items()}
        made["$defs"][INTERPOLATION] = {
            "description": "Inserts another value of the recipe, such as ${batch.effective}.",
            "type": "string",
            "pattern": r"\$\{[^{}]+\}",
        }
    head = {"$schema": DIALECT, "$id": f"urn:orchestrate:{kind}", "title": f"orchestrate {kind}"}
    return {**head, "description": made.pop("description"), **made}


def _tidied(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` without the titles that pydantic makes of names, its texts on one line, its examples as values."""
    tidy = {key: value for key, value in schema.items() if key != "title"}
    if "description" in tidy:
        tidy["description"] = " ".join(tidy["description"].split())
    if "examples" in tidy:
        tidy["examples"] = [parse_yaml(text, "", OrchestratorError).data for text in tidy["examples"]]
    for key in _OF_NAMES:
        if key in tidy:
            tidy[key] = {name: _tidied(value) for name, value in tidy[key].items()}
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False  # a name that does not fit the pattern is refused
    for key in _OF_SCHEMAS:
        if key in tidy:
            tidy[key] = [_tidied(value) for value in tidy[key]]
    for key in _OF_SCHEMA:
        if isinstance(tidy.get(key), dict):
            tidy[key] = _tidied(tidy[key])
    return tidy


def _or_interpolation(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema`, at every depth of it, or a text that holds an interpolation; plain text and anything hold one as is."""
    inner = dict(schema)
    for key in _OF_SCHEMA:
        if isinstance(inner.get(key), dict):
            inner[key] = _or_interpolation(inner[key])
    if "prefixItems" in inner:
        inner["prefixItems"] = [_or_interpolation(value) for value in inner["prefixItems"]]
    told = {key: inner.pop(key) for key in _ANNOTATIONS if key in inner}
    if "anyOf" in inner:
        choices = [_or_interpolation(value) for value in inner.pop("anyOf")]
        parts = [part for choice in choices for part in choice.get("anyOf", [choice]) if part != _REFERENCE]
        if {"type": "string"} in parts:
            return {"anyOf": parts, **told}
        return {"anyOf": [*parts, _REFERENCE], **told}
    if inner in ({}, {"type": "string"}, {"type": "null"}):
        return {**inner, **told}
    return {"anyOf": [inner, _REFERENCE], **told}
