"""Talk of a process that works unattended. Its log may lie on the very disk that is full, and nothing ends of that."""

from __future__ import annotations

import contextlib
import sys


def tell(line: str) -> None:
    """Print a line at once; where that cannot be done, it is not said."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


def warn(line: str) -> None:
    """The same on standard error, with the name of this program before it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"orchestrate: {line}", file=sys.stderr, flush=True)
