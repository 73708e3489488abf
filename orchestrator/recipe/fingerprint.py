"""What makes two runs the same experiment: a hash over everything that may change what is computed. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.section import Section

FREE_SECTIONS = ("resources", "loader", "tuning", "tracking", "hang_timeout", "preflight")
"""Keys that change where, how fast and how well watched a run goes, never what it computes; `tuning.amp: auto` does."""

_ONLY_SAID = {"batch": {"critical"}, "datasets": {"__all__": {"language"}}, "validation": {"__all__": {"language"}}}
"""Keys that change a warning, never what is computed."""

ADDED_LATER: tuple[tuple[str, ...], ...] = (
    ("batch", "unit"),
    ("batch", "equal_micro"),
    ("batch", "micro_multiple"),
    ("optimizer", "args"),
    ("activation_checkpointing",),
    ("compile",),
    ("assets",),
    ("datasets", "*", "iterable"),
    ("validation", "*", "iterable"),
)
"""Keys that came after recipes had been run: at their defaults they compute what was computed before them."""


def fingerprint(recipe: Recipe, code_hash: str, *, decided_batch: int | None = None) -> str:
    """64 hex digits: sha256 over the recipe without its free sections, as canonical JSON, and the code's hash.

    Values from `${oc.env:X}` do not enter; the name X does. Neither do fields left empty, nor those of ADDED_LATER at
    their defaults, so that a new optional field leaves the fingerprint of an old recipe as it is, nor keys that only
    a warning hangs on. `decided_batch` is the effective batch where the allocation decides it.
    """
    excluded: dict[str, Any] = {**dict.fromkeys(FREE_SECTIONS, True), **_ONLY_SAID}
    wanted = recipe.model_dump(mode="json", exclude=excluded, exclude_none=True)
    for path in ADDED_LATER:
        _forget_default(recipe, wanted, path)
    if recipe.amp_tuning == "auto":
        wanted["tuning"] = {"amp": "auto"}
    if decided_batch is not None:
        wanted["effective_batch_size"] = decided_batch
    canonical = json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{canonical}\n{code_hash}".encode()).hexdigest()


def _forget_default(model: Section, holder: dict[str, Any], path: tuple[str, ...]) -> None:
    """Take the key at `path` (`*`: in each of a list) out of `holder` where it is at its default."""
    name, *rest = path
    if rest and rest[0] == "*":
        for part, held in zip(getattr(model, name), holder[name], strict=True):
            _forget_default(part, held, tuple(rest[1:]))
    elif rest:
        _forget_default(getattr(model, name), holder[name], tuple(rest))
    elif holder[name] == type(model).model_fields[name].get_default(call_default_factory=True):
        del holder[name]
