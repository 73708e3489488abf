"""Words and numbers as every screen writes them. Pure."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.units import format_count


def json_text(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def plural(count: int, noun: str) -> str:
    """'1 rank', '2 ranks'."""
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"
