"""This job's own NVIDIA GPUs, asked of the driver by way of NVML. What the driver does not say is absent, never 0."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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


class GpuSampler:
    """Utilization, memory and power of this job's GPUs. Without a driver it has nothing to say, silently."""

    def __init__(self, visible_devices: str | None) -> None:
        try:
            self._handles = visible_gpus(visible_devices)
        except GpuError:
            self._handles = []

    def sample(self) -> dict[str, float]:
        """`gpu/<i>/utilization_percent`, `.../memory_used_bytes`, `.../power_w`, as far as the driver tells them."""
        return {
            f"gpu/{index}/{name}": value
            for index, handle in enumerate(self._handles)
            for name, value in _measurements(handle)
        }


def _measurements(handle: Any) -> Iterator[tuple[str, float]]:
    import pynvml

    with contextlib.suppress(pynvml.NVMLError):
        yield "utilization_percent", float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    with contextlib.suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        yield "memory_used_bytes", float(memory.used)
        yield "memory_percent", 100.0 * memory.used / memory.total
    with contextlib.suppress(pynvml.NVMLError):
        yield "power_w", pynvml.nvmlDeviceGetPowerUsage(handle) / 1000.0
