"""One checkpoint: a folder with a manifest and, last of all, a COMMIT marker. Nothing else is read.

checkpoints/step-00000012/
    model.pt       the model's tensors                        loaded with weights_only
    optimizer.pt   the optimizer's and scaler's, and its kind   loaded with weights_only
    state.json     where training stands, and what the order of samples hangs on
    manifest.json  size and sha256 of the three, and the seconds that writing them took
    COMMIT         sha256 of the manifest
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from orchestrator.checkpoint_names import COMMIT
from orchestrator.errors import Problem, RunError
from orchestrator.files import PRIVATE_FILE, make_private_dir, sha256_of, sync_dir

SCHEMA = 1
STATE = "state.json"
_MANIFEST = "manifest.json"


def build(folder: Path, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Write all but COMMIT into the new `folder`, durable on return; what COMMIT has to say.

    Each file is hashed while it is written, so the sums are those of what was meant, not of what a disk gives back.
    """
    began = time.perf_counter()
    make_private_dir(folder, exist_ok=False)
    files = {
        f"{name}.pt": _write_durably(folder / f"{name}.pt", partial(torch.save, dict(value)))
        for name, value in tensors.items()
    }
    text = json.dumps(dict(state), indent=2).encode()
    files[STATE] = _write_durably(folder / STATE, lambda file: file.write(text))
    write_s = round(time.perf_counter() - began, 3)
    manifest = json.dumps({"schema": SCHEMA, "files": files, "write_s": write_s}, indent=2).encode()
    _write_durably(folder / _MANIFEST, lambda file: file.write(manifest))
    sync_dir(folder)
    return hashlib.sha256(manifest).hexdigest()


def damage_of(checkpoint: Path) -> str | None:
    """Why a committed checkpoint cannot be trusted, in a few words; None when every byte is as it was written.

    Raises RunError for one by a newer version of this program: it is whole, and cannot be read.
    """
    try:
        manifest = (checkpoint / _MANIFEST).read_bytes()
        if (checkpoint / COMMIT).read_bytes().strip() != hashlib.sha256(manifest).hexdigest().encode():
            return f"{COMMIT} and {_MANIFEST} disagree"
        described = json.loads(manifest)
        if described["schema"] > SCHEMA:
            what = f"a newer version saved it, in schema {described['schema']}; this one reads {SCHEMA}"
            raise RunError(Problem(str(checkpoint), what, "resume with the version that saved it"))
        for name, expected in described["files"].items():
            if (checkpoint / name).stat().st_size != expected["bytes"]:
                return f"{name} has another size"
            if sha256_of(checkpoint / name) != expected["sha256"]:
                return f"{name} has changed"
    except OSError as error:
        return f"{Path(error.filename or '').name or checkpoint.name} cannot be read: {error.strerror}"
    return None


class _Hashing:
    """A file that is written from the beginning to the end, and the sum of what went into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self._num_bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Both calls leave the interpreter to other threads while they work."""
        self._sum.update(data)
        self._num_bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """torch.save asks for it."""
        self._file.flush()

    def measured(self) -> dict[str, Any]:
        return {"bytes": self._num_bytes, "sha256": self._sum.hexdigest()}


def _write_durably(path: Path, write: Callable[[Any], Any]) -> dict[str, Any]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb") as file:
        hashing = _Hashing(file)
        write(hashing)
        file.flush()
        os.fsync(file.fileno())
    return hashing.measured()
