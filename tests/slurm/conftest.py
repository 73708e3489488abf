"""Every test in this folder runs against a real Slurm: the lab of ``cluster/dev``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.faults import SLOW
from tests.slurm.slurm_lab import SlurmLab
from tests.support.command_line import run_to_its_end
from tests.support.needed import skip_or_fail
from tests.support.waiting import wait_for

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


@pytest.fixture
def second_lab(lab_packages: None, tmp_path: Path) -> Iterator[SlurmLab]:
    """A lab in a folder of its own, down; whatever a test leaves of it is removed."""
    second = SlurmLab({"ORCHESTRATE_LAB_DIR": str(tmp_path / "lab")})
    yield second
    second.call("down")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slow recipe in one process on this machine."""
    return run_to_its_end(SLOW, cwd=tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def cable(lab: SlurmLab) -> Iterator[Callable[..., None]]:
    """Pulls the cable of a node, or plugs it in ("up"); at the end all are back, and the nodes idle."""
    lab.require_namespaces()
    number = lab.status()["number"]

    def switch(node: int, state: str = "down") -> None:
        subprocess.run(["ip", "link", "set", f"lab{number}-ve{node}", state], check=True)

    yield switch
    for node in (1, 2, 3, 4):
        switch(node, "up")
    lab.run(["scancel", "--me"])
    lab.run(["scontrol", "reconfigure"])  # asks every node; by itself Slurm asks one that is down only once a minute
    wait_for(lambda: {node["state"] for node in lab.status()["nodes"]} == {"idle"})
