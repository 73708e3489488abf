"""How much memory a rank's training took at most, counted from just before its model was made."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass
class PeakMemory:
    """The peak of one device since `from_now`: hardly ever asked for, so that it costs a step nothing."""

    device: torch.device
    baseline_bytes: int
    _before_bytes: int = field(default=0, init=False)
    """The peak before `begin_anew` was called last."""

    @classmethod
    def from_now(cls, device: torch.device) -> PeakMemory:
        """Begin to count. On a CPU what is resident now is not counted, and the kernel's high-water mark is reset.

        Source: proc(5), VmHWM in /proc/PID/status and 5 in /proc/PID/clear_refs; where it cannot be reset, an earlier
        peak of this process (reading data) may stand in for a lower one of training.
        """
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return cls(device, 0)
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK)
        return cls(device, _resident_bytes("VmRSS"))

    def begin_anew(self) -> None:
        """From now on `recent_bytes` is of what comes, on CUDA."""
        self._before_bytes = self.observed_bytes()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def observed_bytes(self) -> int:
        """The most that tensors took (CUDA: allocated, not reserved), or by which the process grew (CPU)."""
        return max(self._before_bytes, self.recent_bytes())

    def recent_bytes(self) -> int:
        """The same since `begin_anew` was called last, on CUDA; else of all the time."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _resident_bytes("VmHWM") - self.baseline_bytes)


def _resident_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
