"""What tuning found in earlier runs of the same recipe on the same machines: a new run begins with it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from orchestrator.cluster import Cluster
from orchestrator.files import read_json, write_json
from orchestrator.recipe.read import ReadRecipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.user_cache import file_of
from orchestrator.tuned import keep_tuned, read_tuned

_DEPENDS_ON: dict[str, Any] = {
    "model": True,
    "datasets": True,
    "mixture": True,
    "loss": True,
    "batch": True,
    "optimizer": True,
    "precision": True,
    "activation_checkpointing": True,
    "compile": True,
    "loader": True,
    "env": True,
    "resources": {"num_nodes", "gpus_per_node", "gpu_type", "cpus_per_gpu", "memory", "partition", "constraint"},
}
"""The parts of a recipe that the time of a step hangs on, and where somebody else may have begun."""


def begin_tuned(run: RunDir, read: ReadRecipe, cluster: Cluster, *, code_digest: str) -> None:
    """Tell a run about to be handed over what is known of runs like it, and where to keep what it finds.

    What its own attempts have found stays, on whatever machines it goes on, unless its loader is another one.
    """
    before = None
    with contextlib.suppress(OSError, ValueError):
        before = read_json(run.tuned_store)
    loader = read.recipe.loader.model_dump(mode="json")
    if read.recipe.workers_tuning != "auto" or (before is not None and before.get("loader") != loader):
        run.tuned.unlink(missing_ok=True)
    if read.recipe.workers_tuning != "auto":
        run.tuned_store.unlink(missing_ok=True)
        return
    try:
        store = _store_file(read, cluster, code_digest=code_digest)
    except RuntimeError:  # nobody has a home
        write_json(run.tuned_store, {"loader": loader})
        return
    write_json(run.tuned_store, {"file": str(store), "loader": loader})
    known = read_tuned(store)
    if known is not None and read_tuned(run.tuned) is None:
        keep_tuned(run, known)


def _store_file(read: ReadRecipe, cluster: Cluster, *, code_digest: str) -> Path:
    depends_on = {
        "recipe": read.recipe.model_dump(mode="json", include=_DEPENDS_ON, exclude_none=True),
        "code": code_digest,
        "cluster": cluster.model_dump(mode="json"),
    }
    return file_of("tuned", depends_on)
