"""What the supervisors' files say, by this driver's own clock: those of other nodes may be wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.heartbeat import SILENT_S, last_sign


@dataclass(frozen=True)
class NodesNow:
    """One look at the nodes of an attempt."""

    silent: tuple[str, ...]
    """Those whose heartbeat has not changed for SILENT_S. A supervisor that has not written yet is not silent, and one
    that has ended is not."""
    stand_still: bool
    """Whether nobody is at work: each supervisor says that its ranks stand still, or says nothing any more."""


@dataclass
class NodeWatch:
    """Looks at the supervisors' files."""

    files: dict[str, Path]
    """By node."""
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[bytes, float]] = field(default_factory=dict, init=False)

    def look(self) -> NodesNow:
        """All nodes now."""
        told = {name: last_sign(file) for name, file in self.files.items()}
        silent = tuple(name for name, sign in told.items() if sign is not None and self._is_silent(name, sign))
        heard = [sign or b"" for name, sign in told.items() if name not in silent and not _has_ended(sign)]
        return NodesNow(silent, bool(heard) and all(b'"stand_still": true' in sign for sign in heard))

    def _is_silent(self, name: str, told: bytes) -> bool:
        before, since = self._seen.get(name, (b"", 0.0))
        if told != before:
            self._seen[name] = told, self.clock()
            return False
        return not _has_ended(told) and self.clock() - since >= SILENT_S


def _has_ended(told: bytes | None) -> bool:
    return told is not None and b'"state": "ended"' in told
