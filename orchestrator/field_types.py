"""Types of fields that recipes and cluster profiles share: text whose form is checked where it is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from orchestrator.patterns import NAME
from orchestrator.units import parse_bytes, parse_walltime


def _walltime(text: str) -> str:
    parse_walltime(text)
    return text


def _memory(text: str) -> str:
    parse_bytes(text)
    return text


Name = Annotated[str, Field(pattern=NAME)]
Walltime = Annotated[str, AfterValidator(_walltime)]
Memory = Annotated[str, AfterValidator(_memory)]
MOST = 2**63 - 1
"""No count is larger: it fits the integers of every program that reads it."""
LARGEST = 1e12
"""No other number is larger: products of a few of them stay finite."""
Count = Annotated[int, Field(ge=1, le=MOST)]
