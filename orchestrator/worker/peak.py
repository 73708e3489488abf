"""How much memory a rank's training took at most, counted from just before its model was made."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class PeakMemory:
    """The peak of one device since `from_now`: asked for once, at the end, so that it costs a step nothing."""

    device: torch.device
    baseline_bytes: int

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

    def observed_bytes(self) -> int:
        """The most that tensors took (CUDA: allocated, not reserved), or by which the process grew (CPU)."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _resident_bytes("VmHWM") - self.baseline_bytes)


def _resident_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
