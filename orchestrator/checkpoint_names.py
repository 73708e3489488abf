"""What the folders of checkpoints are called, and which of them are complete: for ranks and for who looks on."""

from __future__ import annotations

import re
from pathlib import Path

COMMIT = "COMMIT"
"""The file that is written last: without it a folder is no checkpoint."""
_NAME = re.compile(r"step-(\d{8,})")


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint made after `step` optimizer steps; names sort as steps do, up to 10^8."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step that a folder's name says; None for a name that is no checkpoint's."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def committed(folder: Path) -> dict[int, Path]:
    """The complete checkpoints in `folder`, by step; whether one is sound is seen when it is loaded."""
    found = ((step_of(marker.parent.name), marker.parent) for marker in folder.glob(f"*/{COMMIT}"))
    return {step: path for step, path in found if step is not None}
