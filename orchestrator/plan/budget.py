"""What of a GPU's memory tensors may take. Pure; every byte that is kept back has a name and a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.plan.memory import Method

_MIB = 1024**2
_MARGINS: dict[Method, float] = {"simulated": 0.06, "arithmetic": 0.20}
"""Share of the memory that is left alone. 0.06 leaves room for the fragmentation of torch's allocator, 0.20
for what arithmetic cannot know; both are choices, which no GPU has confirmed (decision 12)."""


@dataclass(frozen=True)
class Allowance:
    """Memory that no simulation sees, and why it is needed."""

    name: str
    num_bytes: int
    reason: str


@dataclass(frozen=True)
class Budget:
    """A GPU's memory, and what of it tensors may take: the rest is the margin and the allowances."""

    gpu_bytes: int
    margin_bytes: int
    margin_reason: str
    allowances: tuple[Allowance, ...]

    @property
    def tensor_bytes(self) -> int:
        """What tensors may take at their peak; negative where not even the allowances fit."""
        return self.gpu_bytes - self.margin_bytes - sum(allowance.num_bytes for allowance in self.allowances)


def budget_of(gpu_bytes: int, *, accelerator: Literal["cuda", "cpu"], method: Method) -> Budget:
    """The budget of one rank. Sizes on CUDA are estimates that no GPU has confirmed (decision 12)."""
    if accelerator == "cuda":
        allowances: tuple[Allowance, ...] = (
            Allowance("driver", gpu_bytes * 11 // 1000, "an 80 GiB card shows programs 79.1 GiB"),
            Allowance("CUDA context", 512 * _MIB, "kernels and their state, in every process: 0.4 to 0.6 GiB"),
            Allowance("workspaces", 256 * _MIB, "cuBLAS (8 to 32 MiB per stream), cuDNN, Triton"),
            Allowance("NCCL", 768 * _MIB, "buffers of one communicator: 0.3 to 1.5 GiB; for one rank too, it may grow"),
        )
        reason = "fragmentation: reserved memory is 1.02 to 1.15 times the allocated"
    else:
        allowances = (
            Allowance("process", 512 * _MIB, "interpreter, torch, gloo and the user's modules, before the model"),
            Allowance("workspaces", 64 * _MIB, "buffers of oneDNN and BLAS"),
        )
        reason = "fragmentation of the heap, loader processes"
    share = _MARGINS[method]
    if method == "arithmetic":
        reason = "first-order arithmetic is off by 20 % and more"
    return Budget(gpu_bytes, int(gpu_bytes * share), reason, allowances)
