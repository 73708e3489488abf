"""node-<name>.json: what the supervisor is doing, rewritten every few seconds so that silence means something.

Each write is a new file renamed over the old one, so that a reader never sees a part; it is not made durable. News
that is five seconds old when it counts is worth no fsync on a shared file system, and a node that lost its power has
none: its silence is the message.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from orchestrator.files import PRIVATE_FILE

HEARTBEAT_S = 5.0


class NodeFile:
    """The one writer of a node's file. `write` may raise OSError; `beat` never does, since training goes on."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self._path = path
        self._fields = fields
        self._beat_at = 0.0

    def write(self, **changes: Any) -> None:
        """Change some fields and write all of them, with the present time as `heartbeat_at`."""
        self._fields |= changes
        self._beat_at = time.monotonic()
        record = json.dumps({**self._fields, "heartbeat_at": time.time()}, indent=2).encode()
        temporary = self._path.with_name(f".{self._path.name}.new")
        with open(temporary, "wb", opener=_private) as file:
            file.write(record)
        temporary.replace(self._path)

    def beat(self) -> None:
        """Write again when the last write is HEARTBEAT_S old. A full or lost file system is not the run's end."""
        if time.monotonic() - self._beat_at >= HEARTBEAT_S:
            self.try_write()

    def try_write(self, **changes: Any) -> None:
        """`write`, but a file system that refuses is told in the node's log alone."""
        try:
            self.write(**changes)
        except OSError as error:
            print(f"supervisor: {self._path} cannot be written: {error.strerror}", flush=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)
