"""What is timed on the lab needs the lab."""

from __future__ import annotations

from tests.slurm.conftest import cable, lab, lab_packages

__all__ = ["cable", "lab", "lab_packages"]
