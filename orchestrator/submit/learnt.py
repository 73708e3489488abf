"""What running out of memory has taught earlier runs of a model: kept beside what `orchestrate fit` remembers.

Only for GPUs: how much a CPU rank gets hangs on whatever else the machine does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.cluster import Cluster
from orchestrator.files import read_json, write_json
from orchestrator.machine import detect_accelerator
from orchestrator.plan.learnt import LearntLimit, device_of, limit_from_json
from orchestrator.recipe.memory_limit import pretended_limits
from orchestrator.recipe.read import ReadRecipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.user_cache import file_of

_OVERRIDE = "batch.micro="
_DEPENDS_ON: dict[str, Any] = {
    "model": True,
    "datasets": True,
    "loss": True,
    "optimizer": {"name", "target", "args", "momentum"},
    "precision": True,
    "activation_checkpointing": True,
    "compile": True,
}
"""The parts of a recipe that its memory hangs on; a session's model hangs on its command too."""


def learnt_for(
    read: ReadRecipe,
    cluster: Cluster,
    *,
    code_digest: str,
    overrides: Sequence[str] = (),
    run_dir: RunDir | None = None,
) -> LearntLimit | None:
    """The limit that attempts of this run, or else earlier runs of this model on such a GPU, have found; None for none.

    `--set batch.micro=N` is taken at its word: then there is none.
    """
    if chosen_by_hand(overrides):
        return None
    device = device_of(read.recipe, cluster, detect_accelerator(cluster.accelerator))
    store = store_file(read, cluster, code_digest=code_digest)
    known = (_read(path) for path in (None if run_dir is None else run_dir.learnt, store) if path is not None)
    return next((limit for limit in known if limit is not None and limit.device == device), None)


def chosen_by_hand(overrides: Sequence[str]) -> bool:
    """Whether somebody has just named the micro-batch."""
    return any(override.startswith(_OVERRIDE) for override in overrides)


def store_file(read: ReadRecipe, cluster: Cluster, *, code_digest: str) -> Path | None:
    """Where limits of this model, precision and GPU are kept across runs; None where none are."""
    accelerator = detect_accelerator(cluster.accelerator)
    recipe = read.recipe
    if accelerator == "cpu" or recipe.is_plain_command or pretended_limits(recipe):
        return None
    parts = {**_DEPENDS_ON, "command": True} if recipe.opens_session else _DEPENDS_ON
    depends_on = {
        "recipe": recipe.model_dump(mode="json", include=parts, exclude_none=True),
        "code": code_digest,
        "device": device_of(recipe, cluster, accelerator),
    }
    return file_of("fit", depends_on, prefix="learnt-")


def tell_store(run_dir: RunDir, read: ReadRecipe, cluster: Cluster, *, code_digest: str) -> None:
    """Tell the run's driver where to keep what it learns for other runs, if anywhere."""
    store = store_file(read, cluster, code_digest=code_digest)
    if store is None:
        run_dir.learnt_store.unlink(missing_ok=True)
    else:
        write_json(run_dir.learnt_store, {"file": str(store)})


def _read(path: Path) -> LearntLimit | None:
    with contextlib.suppress(OSError, ValueError):
        return limit_from_json(read_json(path))
    return None
