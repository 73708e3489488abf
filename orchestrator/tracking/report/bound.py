"""What holds a run up, by name: from its waits for data and what the driver says of its GPUs. Pure.

Utilisation alone would be wrong twice: idle GPUs beside data that are ready are not the loader's doing, and a busy GPU
beside a run that waits is somebody else's. Where others compute on a GPU, its utilisation and its clock are theirs too,
and say nothing of this run. Of a cause that none of these figures shows, nothing is claimed.
"""

from __future__ import annotations

from typing import Literal

Bound = Literal["input", "shared", "throttled", "compute", "host", "unknown"]

IN_WORDS: dict[Bound, str] = {
    "input": "ranks wait for data",
    "shared": "processes of others run on the GPUs too",
    "throttled": "power, heat or the hardware hold the GPUs' clocks down",
    "compute": "ranks compute, and their data keep up",
    "host": "GPUs idle while data are there: the host or communication holds them up",
    "unknown": "the figures do not say",
}
NEXT: dict[Bound, str] = {
    "input": "give the loader more cores or a faster disk, or let an item cost less",
    "shared": "end what else runs on these GPUs (nvidia-smi shows it), or ask for GPUs that nobody else is given",
    "throttled": "ask the site about these nodes' power and cooling, or leave them out",
    "compute": "a lower precision or more ranks would make it faster; its loader would not",
    "host": "try compile: true or larger micro-batches, and profile twenty steps; more loader processes would not help",
    "unknown": "look at a profile of twenty steps",
}

_IDLE, _WAITS = 0.05, 0.10
"""Shares of a step in waits for data: below the first nothing is wrong with them, beyond the second much is."""
_BUSY, _FULL = 70.0, 90.0
"""Percent of utilisation."""
_MUCH_OF_IT = 50.0
"""Percent of time."""


def bound_of(
    wait_share: float,
    *,
    gpu_percent: float | None,
    throttled_percent: float | None,
    shared_percent: float | None,
    accelerator: Literal["cuda", "cpu"],
) -> Bound:
    """What holds steps up that wait for `wait_share` of their time for data.

    None is what the driver does not tell: of a MIG slice, say. Ranks on a CPU have no other device.
    """
    is_shared = shared_percent is not None and shared_percent >= _MUCH_OF_IT
    if wait_share > _IDLE:
        contradicts = gpu_percent is not None and gpu_percent >= _FULL and wait_share > _WAITS and not is_shared
        return "unknown" if contradicts else "input"
    if accelerator == "cpu":
        return "compute"
    if is_shared:
        return "shared"
    if throttled_percent is not None and throttled_percent >= _MUCH_OF_IT:
        return "throttled"
    if gpu_percent is None:
        return "unknown"
    return "compute" if gpu_percent >= _BUSY else "host"
