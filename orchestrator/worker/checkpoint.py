"""Checkpoints that appear whole: a folder with a manifest and, last of all, a COMMIT marker. Nothing else is read.

checkpoints/step-00000012/
    model.pt       the model's tensors              loaded with weights_only
    optimizer.pt   the optimizer's and scaler's     loaded with weights_only
    state.json     where training stands, and what the order of samples hangs on
    manifest.json  size and sha256 of the three
    COMMIT         sha256 of the manifest
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from orchestrator.errors import Problem, RunError
from orchestrator.files import PRIVATE_FILE, make_private_dir, read_json, sync_dir, write_atomically

SCHEMA = 1
COMMIT = "COMMIT"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint made after `step` optimizer steps; names sort as steps do, up to 10^8."""
    return f"step-{step:08d}"


class CheckpointStore:
    """The checkpoints of one run. Only rank 0 writes; every rank may read."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def path(self, step: int) -> Path:
        return self._folder / checkpoint_name(step)

    def save(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> Path:
        """Write `<name>.pt` for each of `tensors`, and `state.json`; durable and committed on return.

        Whatever stood at this step is replaced (a damaged one, after falling back to an older). Older checkpoints than
        the newest `keep` go only when this one is committed, and so does what a crash has left half-written.
        """
        make_private_dir(self._folder)
        building = self._folder / f".{checkpoint_name(step)}.building"
        shutil.rmtree(building, ignore_errors=True)
        make_private_dir(building, exist_ok=False)
        for name, value in tensors.items():
            _write_durably(building / f"{name}.pt", partial(torch.save, value))
        text = json.dumps(dict(state), indent=2).encode()
        _write_durably(building / "state.json", lambda file: file.write(text))
        manifest = json.dumps({"schema": SCHEMA, "files": dict(_measured(building))}, indent=2).encode()
        _write_durably(building / _MANIFEST, lambda file: file.write(manifest))
        self._publish(building, self.path(step), hashlib.sha256(manifest).hexdigest())
        self._sweep()
        return self.path(step)

    def newest(self, refused: Callable[[str, str], None]) -> int | None:
        """The step of the newest checkpoint that is committed and whole, each of its bytes verified; None for none.

        `refused(name, why)` hears of every committed one that is damaged. Raises RunError when all of them are:
        beginning again at step 0 is a person's decision.
        """
        damaged = []
        for step in self._committed():
            why = damage_of(self.path(step))
            if why is None:
                return step
            damaged.append(f"{checkpoint_name(step)}: {why}")
            refused(checkpoint_name(step), why)
        if damaged:
            what = f"every checkpoint is damaged ({', '.join(damaged)})"
            raise RunError(Problem(str(self._folder), what, "restore one, or remove the folder to begin at step 0"))
        return None

    def _committed(self) -> list[int]:
        """Steps of the checkpoints with a COMMIT marker, newest first."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        steps = [int(match[1]) for path in found if (match := _NAME.fullmatch(path.name)) and (path / COMMIT).is_file()]
        return sorted(steps, reverse=True)

    def _publish(self, building: Path, final: Path, manifest_sha256: str) -> None:
        sync_dir(building)
        if final.exists():
            (final / COMMIT).unlink(missing_ok=True)
            shutil.rmtree(final)
        building.rename(final)
        sync_dir(self._folder)
        write_atomically(final / COMMIT, manifest_sha256 + "\n")

    def _sweep(self) -> None:
        """Remove all but the newest `keep`. The marker goes first: what is being removed is no checkpoint any more."""
        kept = {checkpoint_name(step) for step in self._committed()[: self._keep]}
        for path in self._folder.iterdir():
            if path.name not in kept and (_NAME.fullmatch(path.name) or path.name.endswith(".building")):
                (path / COMMIT).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)


def damage_of(checkpoint: Path) -> str | None:
    """Why a committed checkpoint cannot be trusted, in a few words; None when every byte is as it was written."""
    try:
        manifest = (checkpoint / _MANIFEST).read_bytes()
        if (checkpoint / COMMIT).read_text().strip() != hashlib.sha256(manifest).hexdigest():
            return f"{_MANIFEST} has changed"
        for name, expected in json.loads(manifest)["files"].items():
            if (checkpoint / name).stat().st_size != expected["bytes"]:
                return f"{name} has another size"
            if _sha256(checkpoint / name) != expected["sha256"]:
                return f"{name} has changed"
    except OSError as error:
        return f"{Path(error.filename or '').name or checkpoint.name} cannot be read: {error.strerror}"
    return None


def read_state(checkpoint: Path, *, order_digest: str) -> dict[str, Any]:
    """`state.json`. Raises RunError when the order of samples has changed: the position would mean other data."""
    state: dict[str, Any] = read_json(checkpoint / "state.json")
    if state["order_digest"] != order_digest:
        what = "it was saved in another order of samples: the seed, the datasets or their sizes have changed"
        raise RunError(Problem(str(checkpoint), what, "start a new run"))
    return state


def load_model(model: torch.nn.Module, checkpoint: Path) -> None:
    """Load the model's tensors. Raises RunError in one line when names or shapes differ."""
    stored = _load(checkpoint / "model.pt")
    if differences := list(_differences(model.state_dict(), stored)):
        shown = ", ".join(differences[:4]) + (f" and {len(differences) - 4} more" if len(differences) > 4 else "")
        raise RunError(Problem(str(checkpoint), f"the model is another one: {shown}", "start a new run"))
    model.load_state_dict(stored)


def load_optimizer(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, checkpoint: Path) -> None:
    """Load the state of the optimizer and of the loss scaler."""
    stored = _load(checkpoint / "optimizer.pt")
    optimizer.load_state_dict(stored["optimizer"])
    if scaler.is_enabled():
        scaler.load_state_dict(stored["scaler"])


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _differences(here: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name} is new" for name in here if name not in stored)
    yield from (f"{name} is gone" for name in stored if name not in here)
    for name in here.keys() & stored.keys():
        if isinstance(here[name], torch.Tensor) and here[name].shape != stored[name].shape:
            yield f"{name} has shape {tuple(here[name].shape)}, not {tuple(stored[name].shape)}"


def _write_durably(path: Path, write: Callable[[Any], Any]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _measured(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.iterdir()):
        yield path.name, {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
