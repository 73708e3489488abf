"""The memory of a training step, and the largest micro-batch that fits one GPU, as `orchestrate fit` found them. Pure.

Peak memory over a micro-batch is a chain of nearly straight lines (one phase of the step gives way to another), so a
few points describe it. Sizes in bytes; micro-batches in samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Method = Literal["simulated", "arithmetic"]


@dataclass(frozen=True)
class PeakPoint:
    """The peak of forward and backward at one micro-batch."""

    micro_batch_size: int
    num_bytes: int


@dataclass(frozen=True)
class PeakCurve:
    """Peaks by micro-batch: points in ascending order, straight lines between them and beyond; at least one point."""

    points: tuple[PeakPoint, ...]
    step_bytes: int
    """The peak of the optimizer step, which no micro-batch changes."""

    @classmethod
    def through(cls, peaks: dict[int, int], *, step_bytes: int) -> PeakCurve:
        """The curve through {micro-batch: bytes}."""
        return cls(tuple(PeakPoint(*item) for item in sorted(peaks.items())), step_bytes)

    def peak_bytes(self, micro_batch_size: int) -> int:
        """The predicted peak of a whole optimizer step."""
        fixed, slope = self._line_at(micro_batch_size)
        return max(self.step_bytes, round(fixed + slope * micro_batch_size))

    def line_at(self, micro_batch_size: int) -> tuple[int, int]:
        """(fixed bytes, bytes per sample) of forward and backward around a micro-batch."""
        fixed, slope = self._line_at(micro_batch_size)
        return round(fixed), round(slope)

    def largest_within(self, num_bytes: int, *, most: int) -> int:
        """The largest micro-batch up to `most` that these lines predict to fit; 0 for none."""
        if self.step_bytes > num_bytes or self.peak_bytes(1) > num_bytes:
            return 0
        fits, fails = 1, most + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self.peak_bytes(middle) <= num_bytes else (fits, middle)
        return fits

    def _line_at(self, micro_batch_size: int) -> tuple[float, float]:
        """(fixed, slope) of the segment that holds `micro_batch_size`, or of the nearest one."""
        if len(self.points) == 1:
            return float(self.points[0].num_bytes), 0.0
        segments = list(pairwise(self.points))
        left, right = next((pair for pair in segments if micro_batch_size <= pair[1].micro_batch_size), segments[-1])
        slope = (right.num_bytes - left.num_bytes) / (right.micro_batch_size - left.micro_batch_size)
        return left.num_bytes - slope * left.micro_batch_size, slope


@dataclass(frozen=True)
class MemoryPlan:
    """The largest micro-batch that fits one GPU, in samples, and how that was found. Sizes in bytes."""

    method: Method
    gpu_bytes: int
    """The GPU's memory."""
    budget_bytes: int
    """What of it the simulated tensors may take: the rest is the margin and the allowance."""
    largest_micro_batch: int
    """With gradients kept between micro-steps."""
    largest_without_accumulation: int
    """In a single micro-step per optimizer step: no gradients live through the forward pass."""
    accumulating: PeakCurve
    """Peaks with gradients kept between micro-steps."""
    single: PeakCurve
    """Peaks in a single micro-step."""
    why: str = ""
    """Why the method is arithmetic."""
    fewest: int = 1
    """The smallest micro-batch that can be trained on at all: 2 where one sample alone is refused."""

    @property
    def by(self) -> str:
        """How it was found, in a word or two: 'predicted', or 'by arithmetic'."""
        return "predicted" if self.method == "simulated" else "by arithmetic"

    def limit(self, samples_per_rank: int) -> int:
        """The largest micro-batch for ranks that take `samples_per_rank` in every optimizer step; 0: none fits."""
        if samples_per_rank <= self.largest_without_accumulation:
            return self.largest_without_accumulation
        return self.largest_micro_batch

    def predicted_peak_bytes(self, micro_batch_size: int, *, accumulating: bool) -> int:
        """The peak of tensors that was predicted for an optimizer step in micro-batches of this size."""
        curve = self.accumulating if accumulating else self.single
        return curve.peak_bytes(micro_batch_size)
