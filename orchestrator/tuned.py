"""What tuning has found in a run, for its later attempts, and for other runs like it: two small files of the contract.

Ranks write the run's own: rank 0, and one whose loader process was killed. Where `submit` named another file, the
driver keeps a copy there of what an attempt ended well with.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.run_dir import RunDir
from orchestrator.tuning.loader_law import MOST_WORKERS


@dataclass(frozen=True)
class Tuned:
    """The loader processes of each rank."""

    workers: int
    """What to begin with."""
    most_workers: int = MOST_WORKERS
    """With more than these one was killed, or could not be started."""
    prefetch: int = 2
    """Micro-batches that each has ready."""


def read_tuned(path: Path) -> Tuned | None:
    """What stands in this file; None for no such file, and for anything else in it."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        told: Any = read_json(path)
        tuned = Tuned(**told)
        if all(type(number) is int and number >= 0 for number in asdict(tuned).values()):
            return tuned
    return None


def keep_tuned(run: RunDir, tuned: Tuned) -> None:
    """Keep it for the attempts of this run. Raises OSError."""
    write_json(run.tuned, asdict(tuned))


def share_tuned(run: RunDir) -> None:
    """Keep what this run found for others, where `submit` said so. No run hangs on it: nothing is raised.

    That a process was killed is not kept: who did it may have had nothing to do with the run.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        store, tuned = read_json(run.tuned_store), read_tuned(run.tuned)
        if store is not None and tuned is not None:
            path = Path(store["file"])
            make_private_dir(path.parent)
            write_json(path, asdict(Tuned(tuned.workers, prefetch=tuned.prefetch)))
