"""How long a rank waits for gradients to be exchanged, after its own backward pass.

DDP measures that itself, of its first ten exchanges and then of each hundredth, on a GPU by events: what is read here
costs a step nothing. A rank that is early waits for the last one too, so the least of all ranks is the exchange's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

_NS = 1e-9


@dataclass(frozen=True)
class Exchange:
    """Of the gradients of a model, which DDP is around where there are several ranks."""

    model: nn.Module

    def exposed_s(self) -> float | None:
        """Seconds from the end of this rank's backward pass until all gradients were there, in the last exchange that
        was measured. None before the first one, and for a rank alone."""
        if not isinstance(self.model, DistributedDataParallel):
            return None
        told: Mapping[str, Any] = getattr(self.model, "_get_ddp_logging_data", dict)()
        whole, beside = (told.get(f"backward_{name}", 0) for name in ("comm_time", "compute_comm_overlap_time"))
        return max(0, whole - beside) * _NS if whole else None
