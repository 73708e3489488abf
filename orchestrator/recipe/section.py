"""What all parts of a recipe have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )


def differs(section: Section, name: str) -> bool:
    """Whether a field says something else than its default."""
    return bool(getattr(section, name) != type(section).model_fields[name].get_default(call_default_factory=True))
