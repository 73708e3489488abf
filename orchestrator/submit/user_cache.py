"""Where this user keeps what can be found out again: by the XDG Base Directory Specification."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def user_cache(folder: str, env: Mapping[str, str] = os.environ) -> Path:
    """`folder` in what is kept for this package; it need not exist yet. Raises RuntimeError where nobody has a home."""
    home = Path(env.get("XDG_CACHE_HOME", ""))  # a relative one does not count
    return (home if home.is_absolute() else Path.home() / ".cache") / "orchestrate" / folder


def file_of(folder: str, depends_on: Mapping[str, Any], *, prefix: str = "") -> Path:
    """The file in `user_cache(folder)` for what hangs on `depends_on`, which can be written as JSON."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    return user_cache(folder) / f"{prefix}{key}.json"
