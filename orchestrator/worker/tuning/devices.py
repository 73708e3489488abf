"""What a rank's device has for lower precisions."""

from __future__ import annotations

import torch

from orchestrator.tuning.amp_law import CPU


def capability_of(device: torch.device) -> int:
    """10 x major + minor of a GPU; CPU for none. ROCm's GPUs have bf16, and count as 8.0."""
    if device.type != "cuda":
        return CPU
    if torch.version.hip:
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def memory_of(device: torch.device) -> int | None:
    """Bytes that programs can have of a GPU; None where there is none."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for it: on a CPU without them it is slower than fp32."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
