"""What makes two runs the same experiment: a hash over everything that may change what is computed. Pure."""

from __future__ import annotations

import hashlib
import json

from orchestrator.recipe.schema import Recipe

FREE_SECTIONS = frozenset({"resources", "loader", "tracking"})
"""Sections that change where and how fast a run goes, never what it computes."""


def fingerprint(recipe: Recipe, code_hash: str) -> str:
    """64 hex digits: sha256 over the recipe without its free sections, as canonical JSON, and the code's hash.

    Values from `${oc.env:X}` do not enter; the name X does. Neither do fields left empty, so that a later version's
    new optional field leaves the fingerprint of an old recipe as it is.
    """
    wanted = recipe.model_dump(mode="json", exclude=set(FREE_SECTIONS), exclude_none=True)
    canonical = json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{canonical}\n{code_hash}".encode()).hexdigest()
