"""Host and GPU samples into the journal: soon after the start, every few seconds, and once more at the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil

from orchestrator.node.gpu_sampler import GpuSampler
from orchestrator.talk import tell
from orchestrator.tracking.journal import Journal

FIRST_SAMPLE_S = 1.0
SAMPLE_S = 10.0
_LEAST_S = 0.5
"""No rates over less time than this: the kernel counts CPU time in ticks of 10 ms."""


class HostSampler:
    """CPU, memory, load, disk and network of this machine. Rates are means since the sample before."""

    def __init__(self) -> None:
        psutil.cpu_percent()
        self._counters, self._counted_at = _counters(), time.monotonic()

    def sample(self) -> dict[str, float]:
        """`cpu_percent`, `memory_percent`, `memory_used_bytes`, `load1`, and `..._bytes_per_s` by direction."""
        memory = psutil.virtual_memory()
        values = {
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": memory.percent,
            "memory_used_bytes": float(memory.total - memory.available),
            "load1": os.getloadavg()[0],
        }
        return values | self._rates()

    def _rates(self) -> dict[str, float]:
        now, counters = time.monotonic(), _counters()
        elapsed_s = max(now - self._counted_at, 1e-3)
        rates = {
            f"{name}_per_s": (count - self._counters[name]) / elapsed_s
            for name, count in counters.items()
            if count >= self._counters.get(name, float("inf"))
        }
        self._counters, self._counted_at = counters, now
        return rates


def _counters() -> dict[str, int]:
    """Bytes since boot, by direction; a machine that does not count something leaves it out."""
    disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
    counters: dict[str, int] = {}
    if disk is not None:
        counters |= {"disk_read_bytes": disk.read_bytes, "disk_write_bytes": disk.write_bytes}
    if network is not None:
        counters |= {"network_received_bytes": network.bytes_recv, "network_sent_bytes": network.bytes_sent}
    return counters


class Sampler:
    """A thread that samples until the block ends. A source that raises is told once and asked no more."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._sources: list[Callable[[], dict[str, float]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        gpus = GpuSampler(os.environ.get("CUDA_VISIBLE_DEVICES"), self._journal.event)
        self._sources = [HostSampler().sample, gpus.sample]
        pause_s = FIRST_SAMPLE_S
        while not self._ended.wait(pause_s):
            self._sample()
            sampled_at, pause_s = time.monotonic(), SAMPLE_S
        if pause_s == FIRST_SAMPLE_S or time.monotonic() - sampled_at >= _LEAST_S:
            self._sample()

    def _sample(self) -> None:
        values: dict[str, float] = {}
        for source in tuple(self._sources):
            try:
                values |= source()
            except Exception as error:  # a sample is never worth a run
                self._sources.remove(source)
                tell(f"supervisor: no more {source.__qualname__}: {type(error).__name__}: {error}")
        if values:
            self._journal.system(values)
