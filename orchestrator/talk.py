"""Talk of a process that works unattended. Its log may lie on the very disk that is full, and nothing ends of that."""

from __future__ import annotations

import contextlib


def tell(line: str) -> None:
    """Print a line at once; where that cannot be done, it is not said."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)
