"""The words by which running out of memory is known: ranks write them, the driver reads them."""

from __future__ import annotations

OUT_OF_MEMORY = "OutOfMemory"
"""The type of a rank's error that means: the device's memory did not suffice."""

_SIGNS = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cuda failure 'out of memory'",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "can't allocate memory",
    "outofmemoryerror",
    "memoryerror",
)


def says_out_of_memory(text: str) -> bool:
    """Whether an error's name or message is that of a failed allocation: torch's on CUDA or CPU, CUDA's or Python's."""
    told = text.lower()
    return any(sign in told for sign in _SIGNS)
