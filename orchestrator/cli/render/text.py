"""Words and numbers as every screen writes them. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.units import format_count


def json_text(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in columns as wide as their widest cell, but for the last, which hangs free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def plural(count: int, noun: str) -> str:
    """'1 rank', '2 ranks'."""
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"
