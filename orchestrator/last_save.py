"""What the end of a job leaves time for: one last save, and what comes after it.

How long a save takes is what the run's own checkpoints say; the driver, the ranks and `resume` go by it.
"""

from __future__ import annotations

import contextlib

from orchestrator.checkpoint_names import committed
from orchestrator.files import read_json
from orchestrator.run_dir import RunDir

SAVES = 3
"""So many of the longest save so far: one may be under way, then comes the last one, and as much again where the file
system is busier than it was."""
END_S = 10.0
"""From the last save to the successor in the queue: ranks, torchrun and srun end, a verdict, squeue and sbatch. 1.2 to
4.9 s, measured on two shared cores; see decision 28."""


def longest_save_s(run: RunDir) -> float | None:
    """Seconds that the slowest of the checkpoints that are kept took to be written; None where none says it."""
    found = list[float]()
    for checkpoint in committed(run.checkpoints).values():
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            found.append(float(read_json(checkpoint / "manifest.json")["write_s"]))
    return max(found, default=None)
