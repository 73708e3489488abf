"""The checkpoints of one run: written whole, kept as the recipe says, and the newest good one found again."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.checkpoint_names import COMMIT, checkpoint_name, committed, step_of
from orchestrator.errors import NoRoom, Problem, RunError
from orchestrator.files import FULL, make_private_dir, read_json, sync_dir, write_atomically
from orchestrator.recipe.schema import KeepBest
from orchestrator.units import format_memory
from orchestrator.worker.checkpoints.layout import STATE, build, damage_of
from orchestrator.worker.tensors import num_bytes_of

_BUILDING = ".building"
_NO_ROOM = (*FULL, errno.EFBIG)
_ROOM_RATIO = 1.1
"""A save begins only with so many times the bytes of its tensors free."""


def free_bytes_of(folder: Path) -> int:
    """What the file system of `folder` has left for this user."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints in `folder`. Only rank 0 writes, one save at a time; every rank may read."""

    folder: Path
    keep: int
    keep_best: KeepBest | None = None
    free_bytes: Callable[[Path], int] = free_bytes_of
    before_commit: Callable[[], None] = lambda: None
    """Called before a save touches anything, and again before it commits; what it raises ends the save."""
    before_writing: Callable[[], object] = lambda: None
    """Called when there is room for a save, and nothing of it is written yet."""

    def path(self, step: int) -> Path:
        return self.folder / checkpoint_name(step)

    def save(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> Path:
        """Write `<name>.pt` for each of `tensors`, and `state.json`; durable and committed on return.

        Whatever stood at this step is replaced (a damaged one, after falling back to an older). Checkpoints that need
        not be kept go only when this one is committed, and so does what a crash has left half-written; earlier only
        where the room would not do. Raises NoRoom, and then nothing of this one stays.
        """
        self.before_commit()
        make_private_dir(self.folder)
        self._make_room(math.ceil(_ROOM_RATIO * num_bytes_of(tensors)))
        self.before_writing()
        building = self.folder / f".{checkpoint_name(step)}{_BUILDING}"
        shutil.rmtree(building, ignore_errors=True)
        try:
            self._publish(building, self.path(step), build(building, tensors, state))
        except (OSError, RuntimeError) as error:  # torch.save tells of an OSError by a RuntimeError of its own
            cause = error if isinstance(error, OSError) else error.__context__
            shutil.rmtree(building, ignore_errors=True)
            if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
                raise self._no_room(f"{checkpoint_name(step)} did not fit: {cause.strerror}") from error
            raise
        self._remove_all_but(self._kept(self.keep))
        return self.path(step)

    def newest(self, refused: Callable[[str, str], None]) -> int | None:
        """The step of the newest checkpoint that is committed and whole, each of its bytes verified; None for none.

        `refused(name, why)` hears of every committed one that is damaged. Raises RunError when all of them are
        (beginning again at step 0 is a person's decision), and for one by a newer version.
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
            raise RunError(Problem(str(self.folder), what, "restore one, or remove the folder to begin at step 0"))
        return None

    def best(self) -> int | None:
        """The step of the best whole checkpoint by the metric of `keep_best`; None where there is none."""
        whole = (step for step in self._best(self._committed()) if damage_of(self.path(step)) is None)
        return next(whole, None)

    def would_be_best(self, state: Mapping[str, Any]) -> bool:
        """Whether a checkpoint with this state would be kept for its metric."""
        value = self._value_in(state)
        if self.keep_best is None or value is None:
            return False
        best = [self._value(step) for step in self._best(self._committed())]
        return len(best) < self.keep_best.num or any(known is None or value > known for known in best)

    def _committed(self) -> list[int]:
        """Steps of the checkpoints with a COMMIT marker, newest first."""
        return sorted(committed(self.folder), reverse=True)

    def _publish(self, building: Path, final: Path, marker: str) -> None:
        self.before_commit()
        if final.exists():
            (final / COMMIT).unlink(missing_ok=True)
            shutil.rmtree(final)
        building.rename(final)
        sync_dir(self.folder)
        write_atomically(final / COMMIT, marker + "\n")

    def _make_room(self, wanted_bytes: int) -> None:
        """Remove what may go, as far as it must: what is half-written or kept for nothing, then the oldest but one.

        The next commit would remove that one anyway; it goes only when the newest is whole.
        """
        for num_newest in (self.keep, max(1, self.keep - 1)):
            if self.free_bytes(self.folder) >= wanted_bytes:
                return
            newest = next(iter(self._committed()), None)
            if num_newest == self.keep or (newest is not None and damage_of(self.path(newest)) is None):
                self._remove_all_but(self._kept(num_newest))
        if (free := self.free_bytes(self.folder)) < wanted_bytes:
            raise self._no_room(f"a checkpoint needs {format_memory(wanted_bytes)}, and {format_memory(free)} is free")

    def _no_room(self, what: str) -> NoRoom:
        return NoRoom(Problem(str(self.folder), what, "make room on this file system, or lower checkpoint.keep"))

    def _kept(self, num_newest: int) -> set[int]:
        steps = self._committed()
        return {*steps[:num_newest], *self._best(steps)}

    def _best(self, steps: list[int]) -> list[int]:
        """Of `steps`, those to be kept for their metric: the best first, the newer one of equals."""
        if self.keep_best is None:
            return []
        values = {step: value for step in steps if (value := self._value(step)) is not None}
        return sorted(values, key=lambda step: (values[step], step), reverse=True)[: self.keep_best.num]

    def _value(self, step: int) -> float | None:
        """How good a checkpoint is, larger for better; None where it was not evaluated, or cannot be read."""
        try:
            return self._value_in(read_json(self.path(step) / STATE) or {})
        except (OSError, ValueError):
            return None

    def _value_in(self, state: Mapping[str, Any]) -> float | None:
        if self.keep_best is None or state.get("evaluated_samples") != state.get("consumed_samples"):
            return None
        value = state.get("metrics", {}).get(f"val/{self.keep_best.metric}")
        if value is None or not math.isfinite(value):
            return None
        return float(value) if self.keep_best.mode == "max" else -float(value)

    def _remove_all_but(self, kept: set[int]) -> None:
        """The marker goes first: what is being removed is no checkpoint any more."""
        for path in self.folder.iterdir():
            step = step_of(path.name)
            if (step is not None and step not in kept) or path.name.endswith(_BUILDING):
                (path / COMMIT).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)
