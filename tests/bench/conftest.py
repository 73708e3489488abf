"""What is timed on the lab needs the lab."""

from __future__ import annotations

from tests.slurm.conftest import lab, lab_packages

__all__ = ["lab", "lab_packages"]
