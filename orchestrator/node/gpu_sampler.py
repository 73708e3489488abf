"""This job's GPUs while it runs, asked of the driver once a second by a thread that nobody waits for.

What the driver does not say is absent, never 0: of a MIG slice it tells no utilisation, of a GPU that fell off the bus
nothing. A driver that hangs keeps that thread for ever; all others go on without it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import fmean
from typing import Any

from orchestrator.node.gpus import GpuError, visible_gpus
from orchestrator.node.others import Look, OwnJob
from orchestrator.tracking.events import GPU

ASK_S = 1.0
"""The driver's own measure of utilisation is over 1/6 to 1 s: asking more often tells nothing more (NVML's manual)."""
_SLOWLY = 5
"""Only utilisation is asked for each time; memory, power, the reasons for a lower clock and processes every so many
times."""
SILENT_S = 30.0
"""So long without an answer, and it is said that the driver hangs."""

_HELD_DOWN = 0x8 | 0x20 | 0x40 | 0x80
"""Reasons for a lower clock that something is wrong with a node: heat, a brake of the hardware. Source: nvml.h,
nvmlClocksEventReasonHwSlowdown, SwThermalSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown."""
_POWER_CAP = 0x4
"""A GPU that is busy is at its limit of power much of the time (nvmlClocksEventReasonSwPowerCap)."""
_NO_INSTANCE = 0xFFFFFFFF
"""Of a process on a GPU that is not sliced (nvmlProcessInfo_t.gpuInstanceId). Which slice is ours is not known."""

_Ask = Callable[[Any], Iterator[tuple[str, float]]]
Told = Callable[[str, Mapping[str, Any]], None]
"""Takes the name of an event and what it says."""


class GpuSampler:
    """Utilisation, memory, power and throttling of the GPUs in `visible_devices` (CUDA_VISIBLE_DEVICES), or of all.

    Without a driver it has nothing to say, silently. Events are told of a GPU that is lost, and of a silent driver.
    """

    def __init__(self, visible_devices: str | None, told: Told) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._heard: defaultdict[str, list[float]] = defaultdict(list)
        """Since they were last asked for, by name."""
        self._asked_at: float | None = None
        """Since when an answer is waited for; None while none is."""
        self._is_silent = False
        self._lost: set[int] = set()
        thread = threading.Thread(target=self._run, args=(visible_devices,), name="gpu-sampler", daemon=True)
        thread.start()

    def sample(self) -> dict[str, float]:
        """Means since the last call: `gpu/<i>/utilization_percent`, `.../memory_used_bytes`, `.../memory_percent`,
        `.../power_w`, of the time `.../throttled_percent` and `.../power_capped_percent`, and `.../others`, how many
        processes of others are there at least; as far as it was told."""
        with self._lock:
            heard, self._heard = self._heard, defaultdict(list)
        waited_s = 0.0 if (since := self._asked_at) is None else time.monotonic() - since
        if waited_s >= SILENT_S and not self._is_silent:
            self._is_silent = True
            self._told(GPU, {"what": f"the NVIDIA driver has not answered for {waited_s:.0f} s"})
        return {name: fmean(values) for name, values in heard.items()}

    def _run(self, visible_devices: str | None) -> None:
        try:
            self._ask(visible_devices)
        except GpuError:
            self._asked_at = None
        except Exception as error:  # a sample is never worth a run, and a thread that is gone is no silent driver
            self._asked_at = None
            self._told(GPU, {"what": f"GPUs are sampled no more: {type(error).__name__}: {error}"})

    def _ask(self, visible_devices: str | None) -> None:
        """For ever. Raises GpuError where there is no driver."""
        self._asked_at = time.monotonic()
        handles, job = visible_gpus(visible_devices), OwnJob.here()
        for number in itertools.count():
            self._asked_at = time.monotonic()
            found = dict(self._measured(handles, _QUICK if number % _SLOWLY else _all(job)))
            self._asked_at = None
            if self._is_silent:
                self._is_silent = False
                self._told(GPU, {"what": "the NVIDIA driver answers again"})
            with self._lock:
                for name, value in found.items():
                    self._heard[name].append(value)
            time.sleep(ASK_S)

    def _measured(self, handles: list[Any], asks: tuple[_Ask, ...]) -> Iterator[tuple[str, float]]:
        import pynvml

        for index, handle in enumerate(handles):
            for ask in asks:
                try:
                    for name, value in ask(handle):
                        yield f"gpu/{index}/{name}", value
                except pynvml.NVMLError_GpuIsLost:
                    self._tell_lost(index)
                    break
                except pynvml.NVMLError:
                    continue

    def _tell_lost(self, index: int) -> None:
        if index not in self._lost:
            self._lost.add(index)
            self._told(GPU, {"gpu": index, "what": f"GPU {index} is lost: it has fallen off the bus, or was reset"})


def _utilization(handle: Any) -> Iterator[tuple[str, float]]:
    import pynvml

    yield "utilization_percent", float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _memory(handle: Any) -> Iterator[tuple[str, float]]:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    yield "memory_used_bytes", float(memory.used)
    if memory.total:
        yield "memory_percent", 100.0 * memory.used / memory.total


def _power(handle: Any) -> Iterator[tuple[str, float]]:
    import pynvml

    yield "power_w", pynvml.nvmlDeviceGetPowerUsage(handle) / 1000.0


def _throttling(handle: Any) -> Iterator[tuple[str, float]]:
    import pynvml

    try:
        reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError_FunctionNotFound:  # a driver before 535 calls them so
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    yield "throttled_percent", 100.0 * bool(reasons & _HELD_DOWN)
    yield "power_capped_percent", 100.0 * bool(reasons & _POWER_CAP)


def _others(look: Look, handle: Any) -> Iterator[tuple[str, float]]:
    import pynvml

    found = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)  # without _v3 an old driver is no NVMLError
    if any(one.gpuInstanceId != _NO_INSTANCE for one in found):
        return
    if (number := look.num_others({one.pid for one in found})) is not None:
        yield "others", float(number)


_QUICK: tuple[_Ask, ...] = (_utilization,)


def _all(job: OwnJob | None) -> tuple[_Ask, ...]:
    asks: tuple[_Ask, ...] = (_utilization, _memory, _power, _throttling)
    return asks if job is None else (*asks, partial(_others, Look(job)))
