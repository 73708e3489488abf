"""Random numbers as functions of where training stands, so that no generator's state is ever saved."""

from __future__ import annotations

import hashlib
import struct

import torch


def derived_seed(*numbers: int) -> int:
    """A 64-bit seed from `numbers` (each below 2^63): other numbers, another seed. Costs about a microsecond."""
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of `device`.

    torch.manual_seed does the same for every device there is, and takes 160 microseconds for it (torch 2.13).
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


class StepSeeds:
    """The seeds of one rank's steps: what its model draws in a step is the same after a resume."""

    def __init__(self, run_seed: int, rank: int, device: torch.device) -> None:
        self._first, self._device = derived_seed(run_seed, rank), device

    def begin(self, step: int) -> None:
        """Seed torch's generators for `step`."""
        seed_torch((self._first + step) % 2**63, self._device)
