"""A file about a process at work, rewritten by it every few seconds so that silence means something.

The driver and each supervisor keep one: driver.json, node-<name>.json.

Each write is a new file renamed over the old one, so that a reader never sees a part; it is not made durable. News
that is five seconds old when it counts is worth no fsync on a shared file system, and a node that lost its power has
none: its silence is the message.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from orchestrator.files import PRIVATE_FILE
from orchestrator.talk import tell

HEARTBEAT_S = 5.0
SILENT_S = 3 * HEARTBEAT_S
"""Who has not written for so long is silent. It is measured by the clock of who looks: those of machines differ."""


class Heartbeat:
    """The one writer of such a file. `write` may raise OSError; `beat` never does, since training goes on."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self._path = path
        self._fields = fields
        self._beat_at = 0.0

    @property
    def has_place(self) -> bool:
        """Whether the directory of the file is there, as far as the file system says so."""
        try:
            self._path.parent.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

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
        """`write`, but a file system that refuses is told in this process's log alone.

        The time of the file is a sign of life that needs no room.
        """
        try:
            self.write(**changes)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.utime(self._path)
            tell(f"heartbeat: {self._path} cannot be written: {error.strerror}")


def last_sign(path: Path) -> bytes | None:
    """What changes whenever the writer of `path` gives a sign of life; None where the file cannot be read."""
    try:
        return path.read_bytes() + str(path.stat().st_mtime_ns).encode()
    except OSError:
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)
