"""Every test in this folder runs against a real Slurm: the lab of ``cluster/dev``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.slurm_lab import SlurmLab, skip_or_fail

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and no others: pytest passes all of the session's."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def lab_packages() -> None:
    """Skip (in CI: fail) where a lab cannot be brought up."""
    if os.geteuid() != 0:
        skip_or_fail("the Slurm lab needs root")
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    programs = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "ip")
    if missing := [program for program in programs if shutil.which(program, path=path) is None]:
        skip_or_fail(f"not installed: {', '.join(missing)} (run cluster/dev/install-packages)")


@pytest.fixture(scope="session")
def lab(lab_packages: None) -> Iterator[SlurmLab]:
    """The lab, up. It is taken down at the end only if it was brought up here."""
    lab = SlurmLab()
    was_up = lab.status()["lab"] == "up"
    if not was_up:
        brought_up = lab.call("up")
        assert brought_up.returncode == 0, brought_up.stderr
    yield lab
    if not was_up:
        taken_down = lab.call("down")
        assert taken_down.returncode == 0, taken_down.stderr
