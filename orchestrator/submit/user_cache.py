"""Where this user keeps what can be found out again: by the XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(folder: str) -> Path:
    """`folder` in what is kept for this package; it need not exist yet. Raises RuntimeError where nobody has a home."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "orchestrate" / folder
