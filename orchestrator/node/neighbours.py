"""What the supervisors of an attempt's other nodes say of silence, read from their files when it matters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.files import read_json
from orchestrator.hang import Hang

UNHEARD_S = 120.0
"""A supervisor whose file has not changed for so long says nothing any more, and is not waited for."""


class Neighbours:
    """The other nodes' files. Clocks of other machines are compared with themselves alone."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._heard: dict[Path, tuple[Any, float]] = {}

    def hangs(self) -> tuple[Hang, ...] | None:
        """Of each other node that is silent, or has ended by that, the rank that it names; None while a rank is at work
        on one of them."""
        found = []
        for file in self._files:
            told = _read(file)
            if told.get("state") == "ended":
                found += [Hang(**told["hang"])] if told.get("hang") else []
                continue
            if told.get("silent"):
                found.append(Hang(**told["silent"]))
            elif self._is_heard(file, told.get("heartbeat_at")):
                return None
        return tuple(found)

    def _is_heard(self, file: Path, heartbeat_at: Any) -> bool:
        now = time.monotonic()
        if file not in self._heard or self._heard[file][0] != heartbeat_at:
            self._heard[file] = (heartbeat_at, now)
        return now - self._heard[file][1] < UNHEARD_S


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file) or {}
    except (OSError, ValueError):
        return {}
