"""Waiting until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_for(what: Callable[[], Any], timeout_s: float = 120) -> Any:
    """The first true answer of `what`, asked ten times a second."""
    give_up_at = time.monotonic() + timeout_s
    while not (answer := what()):
        assert time.monotonic() < give_up_at, f"this never came true in {timeout_s:g} s"
        time.sleep(0.1)
    return answer


def is_alive(pid: int) -> bool:
    """True for a process that runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
