"""Files appear whole, or record by record with a checksum. Standard library only: every place uses it.

Source of the record format and of its short-write handling: ENOSPC arrives first as a short write that leaves a
torn line, so a writer starts its next record on a new line and a reader skips what fails its CRC.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The errno of a write that a full disk refuses, or a quota that is used up."""
PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700


def make_private_dir(path: Path, *, exist_ok: bool = True) -> Path:
    """Create `path`, and those of its parents that are missing, with mode 0700."""
    if not path.parent.exists():
        make_private_dir(path.parent)
    path.mkdir(mode=PRIVATE_DIR, exist_ok=exist_ok)
    return path


def sha256_of(path: Path) -> str:
    """64 hex digits over the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_dir(path: Path) -> None:
    """Make names created or renamed in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, content: str | bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Write `content` so that a reader sees the old file or the new one, never a part. Durable on return."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    data = content.encode() if isinstance(content, str) else content
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically, mode 0600."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in `path`, or None where there is no such file yet."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def encode_record(record: dict[str, Any]) -> bytes:
    """`crc32 SP json LF`: one line of an append-only file."""
    body = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_record(line: bytes) -> dict[str, Any] | None:
    """The record on `line` (without its LF), or None for a torn or damaged one."""
    checksum, _, body = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        record = json.loads(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def read_records(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Yield (record or None for a damaged line, offset after it) from `offset` on; an unfinished last line waits."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            if len(line) > 1:
                yield decode_record(line[:-1]), offset
