"""What holds a run up, by name: from what its ranks wait for and what the driver says of its GPUs. Pure.

Utilisation alone would be wrong twice: idle GPUs beside data that are ready are not the loader's doing, and a busy GPU
beside a run that waits is somebody else's. Where others compute on a GPU, its utilisation and its clock are theirs too,
and say nothing of this run. Of a cause that none of these figures shows, nothing is claimed.
"""

from __future__ import annotations

from typing import Literal

from orchestrator.tuning.amp_law import MOST_EXCHANGE_SHARE

Bound = Literal["input", "communication", "shared", "throttled", "compute", "host", "unknown"]

IN_WORDS: dict[Bound, str] = {
    "input": "ranks wait for data",
    "communication": "ranks wait for gradients to be exchanged, after their backward passes",
    "shared": "processes of others run on the GPUs too",
    "throttled": "power, heat or the hardware hold the GPUs' clocks down",
    "compute": "ranks compute, and their data keep up",
    "host": "GPUs idle while data are there, and not for gradients: the host holds them up",
    "unknown": "the figures do not say",
}
NEXT: dict[Bound, str] = {
    "input": "give the loader more cores or a faster disk, or let an item cost less",
    "communication": "ask for fewer nodes with more GPUs each, or see which network they take (NCCL_DEBUG=INFO says)",
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
    exchange_share: float | None,
    gpu_percent: float | None,
    throttled_percent: float | None,
    shared_percent: float | None,
    accelerator: Literal["cuda", "cpu"],
) -> Bound:
    """What holds steps up that wait for `wait_share` of their time for data.

    None is what nobody tells: the driver of a MIG slice, say, or a rank alone of an exchange. Ranks on a CPU have no
    other device. What moves gradients is a kernel too: beside much of it, utilisation is not of computing.
    """
    is_exchange = exchange_share is not None and exchange_share > max(MOST_EXCHANGE_SHARE, wait_share)
    is_shared = shared_percent is not None and shared_percent >= _MUCH_OF_IT
    if wait_share > _IDLE and not is_exchange:
        contradicts = gpu_percent is not None and gpu_percent >= _FULL and wait_share > _WAITS and not is_shared
        return "unknown" if contradicts else "input"
    if is_shared:
        return "shared"
    if is_exchange:
        return "communication"
    if accelerator == "cpu":
        return "compute"
    if throttled_percent is not None and throttled_percent >= _MUCH_OF_IT:
        return "throttled"
    if gpu_percent is None:
        return "unknown"
    return "compute" if gpu_percent >= _BUSY else "host"
