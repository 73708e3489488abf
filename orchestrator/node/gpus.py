"""This job's own NVIDIA GPUs, asked of the driver by way of NVML. What the driver does not say is absent, never 0."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any


class GpuError(Exception):
    """The driver is missing, or does not know a GPU that this job was given. One line."""


def visible_gpus(visible_devices: str | None) -> list[Any]:
    """NVML handles of the GPUs in `visible_devices` (CUDA_VISIBLE_DEVICES: numbers or UUIDs), or of all.

    Raises GpuError.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        if visible_devices is None:
            return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_handle(name.strip()) for name in visible_devices.split(",") if name.strip()]
    except pynvml.NVMLError as error:
        given = "" if visible_devices is None else f" (CUDA_VISIBLE_DEVICES={visible_devices})"
        raise GpuError(f"the NVIDIA driver says: {error}{given}") from None


def _handle(name: str) -> Any:
    import pynvml

    return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)


@dataclass(frozen=True)
class GpuState:
    """What the driver says of a GPU before anything of this job runs on it; None where it does not say."""

    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    uncorrected_errors: int | None = None
    """Of its memory, since the driver was loaded or the GPU reset; None without ECC."""


def gpu_states(handles: list[Any]) -> tuple[GpuState, ...]:
    """The state of each of the GPUs with these handles."""
    return tuple(_state(handle) for handle in handles)


def _state(handle: Any) -> GpuState:
    import pynvml

    used = total = errors = None
    with contextlib.suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        used, total = int(memory.used), int(memory.total)
    with contextlib.suppress(pynvml.NVMLError):
        kind, since = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        errors = int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, since))
    return GpuState(used, total, errors)
