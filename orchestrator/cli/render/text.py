"""Words and numbers as every screen writes them. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def json_text(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in columns as wide as their widest cell, but for the last, which hangs free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)
