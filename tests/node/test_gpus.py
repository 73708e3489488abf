"""GPUs that are there but not sound or not free."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.node.gpus import GpuState
from orchestrator.node.health import check_ecc, check_gpu_memory
from tests.support.fake_driver import DRIVER_NOT_LOADED, FakeDriver

GIB = 1 << 30
PROGRAM = """
import json
from orchestrator.node.health import check_gpus
print(json.dumps([[check.name, check.ok, check.detail] for check in check_gpus(2, None)]))
"""


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver(tmp_path)


def checks(driver: FakeDriver) -> dict[str, tuple[bool, str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **driver.env}, capture_output=True, text=True, check=True
    )
    return {name: (ok, detail) for name, ok, detail in json.loads(done.stdout)}


def test_gpus_that_are_sound_and_free_pass(driver: FakeDriver) -> None:
    driver.says(count=2, used_gib_0=1, used_gib_1=4)
    assert checks(driver) == {
        "gpus": (True, "2 visible, 2 planned"),
        "gpu errors": (True, "none"),
        "gpu memory": (True, "5% taken at most"),
    }


def test_what_the_driver_says_of_a_bad_gpu_fails_the_node(driver: FakeDriver) -> None:
    driver.says(count=2, used_gib_0=1, used_gib_1=70, errors_1=3)
    found = checks(driver)
    assert found["gpus"][0]
    assert found["gpu errors"][1].startswith("GPU 1 has 3 uncorrected memory errors; exclude this node until")
    assert found["gpu memory"][1].startswith("GPU 1: 70.0 of 80.0 GiB are taken before this job has begun; end what")
    assert not found["gpu errors"][0] and not found["gpu memory"][0]


def test_a_driver_that_is_not_loaded_fails_the_node(driver: FakeDriver) -> None:
    driver.says(init_fails=DRIVER_NOT_LOADED)
    ok, detail = checks(driver)["gpus"]
    assert not ok and detail.startswith("the NVIDIA driver says: Driver Not Loaded")


@pytest.mark.parametrize(
    ("used_gib", "ok"),
    [
        pytest.param(None, True, id="nobody knows"),
        pytest.param(2, True, id="a display"),
        pytest.param(4, True, id="a quarter"),
        pytest.param(5, False, id="more than a quarter"),
    ],
)
def test_others_may_hold_a_quarter_of_a_gpu(used_gib: int | None, ok: bool) -> None:
    state = GpuState() if used_gib is None else GpuState(used_gib * GIB, 16 * GIB)
    assert check_gpu_memory([GpuState(0, 16 * GIB), state]).ok is ok


def test_a_gpu_without_ecc_is_taken_and_said() -> None:
    check = check_ecc([GpuState(uncorrected_errors=0), GpuState()])
    assert check.ok and check.detail == "none uncorrected, 1 of 2 without ECC"
