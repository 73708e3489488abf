"""What is sampled of GPUs: what the driver says, and no more; nobody waits for one that hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.node import gpu_sampler
from orchestrator.tracking.journal import read_journal_dir
from tests.support.fake_driver import DRIVER_NOT_LOADED, GPU_IS_LOST, NOT_SUPPORTED, FakeDriver
from tests.support.waiting import wait_for

SUPERVISOR = """
import sys
from pathlib import Path
from orchestrator.node import gpu_sampler, sample
from orchestrator.tracking.journal import Journal
sample.FIRST_SAMPLE_S = sample.SAMPLE_S = 0.2
gpu_sampler.ASK_S, gpu_sampler.SILENT_S = 0.02, float(sys.argv[2])
with Journal(Path(sys.argv[1]), attempt=0, node="here", rank=None) as journal, sample.Sampler(journal):
    sys.stdin.read()
"""


class Supervised:
    """The journal of a process that samples, much faster than a supervisor does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def samples(self) -> list[dict[str, float]]:
        return [record["values"] for _, record in read_journal_dir(self._folder) if record["kind"] == "system"]

    def gpu(self) -> dict[str, float]:
        """What was last told of GPUs."""
        told = self.samples()
        return {name[4:]: value for name, value in told[-1].items() if name.startswith("gpu/")} if told else {}

    def gpu_at(self, utilization_percent: float) -> dict[str, float]:
        """The first sample in which GPU 0 is at work so much, and all else is told too: not every one has it."""

        def sample() -> dict[str, float] | None:
            told = self.gpu()
            is_whole = {f"0/{name}" for name in NAMES} <= told.keys()
            return told if is_whole and told["0/utilization_percent"] == utilization_percent else None

        found: dict[str, float] = wait_for(sample, timeout_s=20)
        return found

    def events(self) -> list[dict[str, Any]]:
        records = (record for _, record in read_journal_dir(self._folder))
        return [record["detail"] for record in records if record.get("name") == "gpu"]


@contextmanager
def supervised(folder: Path, driver: FakeDriver, *, silent_s: float = 60.0, **env: str) -> Iterator[Supervised]:
    """It ends with the block, within seconds, whatever the driver does."""
    variables = {**os.environ, **driver.env, **env}
    command = [sys.executable, "-c", SUPERVISOR, str(folder / "run"), str(silent_s)]
    process = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE)
    try:
        yield Supervised(folder / "run")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=8) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver(tmp_path)


def test_what_the_driver_says_is_followed(driver: FakeDriver, tmp_path: Path) -> None:
    driver.says(util_0=97, used_gib_0=40, power_w_0=350, reasons_0=0x44)
    with supervised(tmp_path, driver) as node:
        assert node.gpu_at(97) == {
            "0/utilization_percent": 97,
            "0/memory_used_bytes": 40 << 30,
            "0/memory_percent": 50,
            "0/power_w": 350,
            "0/throttled_percent": 100,
            "0/power_capped_percent": 100,
        }
        driver.says(util_0=12, reasons_0=0x1)
        assert node.gpu_at(12)["0/throttled_percent"] == 0, "an idle GPU is not held down"
        driver.says(util_0=99, reasons_0=0x4)
        held = node.gpu_at(99)
        assert (held["0/throttled_percent"], held["0/power_capped_percent"]) == (0, 100)


def test_only_the_jobs_own_gpus_are_asked_and_counted_as_it_counts_them(driver: FakeDriver, tmp_path: Path) -> None:
    driver.says(count=4, util_0=1, util_1=2, util_2=3, util_3=4)
    with supervised(tmp_path, driver, CUDA_VISIBLE_DEVICES="GPU-3,GPU-1") as node:
        told = wait_for(node.gpu, timeout_s=20)
        used = {name: value for name, value in told.items() if name.endswith("utilization_percent")}
        assert used == {"0/utilization_percent": 4, "1/utilization_percent": 2}


def test_of_a_mig_slice_the_utilisation_is_unknown_and_not_0(driver: FakeDriver, tmp_path: Path) -> None:
    driver.says(util_fails_0=NOT_SUPPORTED, used_gib_0=8)
    with supervised(tmp_path, driver) as node:
        wait_for(lambda: "0/memory_percent" in node.gpu(), timeout_s=20)
        assert all("gpu/0/utilization_percent" not in values for values in node.samples())
        assert node.events() == []


def test_a_gpu_that_is_lost_is_told_once_and_the_others_go_on(driver: FakeDriver, tmp_path: Path) -> None:
    driver.says(count=2, util_0=50, util_1=60)
    with supervised(tmp_path, driver) as node:
        wait_for(lambda: node.gpu().get("1/utilization_percent") == 60, timeout_s=20)
        driver.says(count=2, util_0=55, fails_1=GPU_IS_LOST)
        wait_for(lambda: node.gpu().keys() == {f"0/{name}" for name in NAMES}, timeout_s=20)
        wait_for(lambda: node.gpu().get("0/utilization_percent") == 55, timeout_s=20)
    assert [event["gpu"] for event in node.events()] == [1] and "is lost" in node.events()[0]["what"]


NAMES = (
    "utilization_percent",
    "memory_used_bytes",
    "memory_percent",
    "power_w",
    "throttled_percent",
    "power_capped_percent",
)


@pytest.mark.parametrize("from_the_start", [False, True], ids=["on the way", "from the start"])
def test_a_driver_that_hangs_is_told_and_keeps_nobody_waiting(
    driver: FakeDriver, tmp_path: Path, from_the_start: bool
) -> None:
    driver.says(util_0=50, hang=int(from_the_start))
    with supervised(tmp_path, driver, silent_s=2.0) as node:
        if not from_the_start:
            wait_for(lambda: bool(node.gpu()), timeout_s=20)
            driver.says(hang=1)
        wait_for(lambda: len(node.events()) == 1, timeout_s=20)
        assert "has not answered for" in node.events()[0]["what"]
        before = len(node.samples())
        wait_for(lambda: len(node.samples()) >= before + 3, timeout_s=20)
        assert "load1" in node.samples()[-1] and node.gpu() == {}
        driver.says(util_0=51)
        wait_for(lambda: node.gpu().get("0/utilization_percent") == 51, timeout_s=20)
        assert [event["what"] for event in node.events()][1:] == ["the NVIDIA driver answers again"]
        driver.says(hang=1)
        time.sleep(0.1)


@pytest.mark.parametrize(
    "is_loaded", [False, True], ids=["a library without a function", "a driver that is not loaded"]
)
def test_without_a_driver_there_is_nothing_to_say(driver: FakeDriver, tmp_path: Path, is_loaded: bool) -> None:
    driver.says(init_fails=DRIVER_NOT_LOADED)
    if not is_loaded:
        driver.knows_nothing()
    with supervised(tmp_path, driver) as node:
        wait_for(lambda: len(node.samples()) >= 3, timeout_s=20)
        assert node.gpu() == {} and node.events() == []


def test_a_fault_of_the_sampler_is_told_as_such_and_not_as_a_silent_driver(tmp_path: Path) -> None:
    told: list[str] = []

    def broken(visible_devices: str | None) -> list[Any]:
        raise AttributeError("no such function")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_sampler, "visible_gpus", broken)
        patch.setattr(gpu_sampler, "SILENT_S", 1e-6)
        sampler = gpu_sampler.GpuSampler(None, lambda name, detail: told.append(detail["what"]))
        wait_for(lambda: bool(told), timeout_s=10)
        assert sampler.sample() == {}
    assert told == ["GPUs are sampled no more: AttributeError: no such function"]
