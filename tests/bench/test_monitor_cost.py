"""What watching costs: the sampler of a node, and in each step of a rank what its loader is tuned by."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from orchestrator.pulse import make_pulse
from orchestrator.run_dir import PULSE_VARIABLE
from orchestrator.tracking.events import GPU
from orchestrator.tracking.journal import Journal, read_journal_dir
from orchestrator.worker.data.fetch_cost import FetchCost, FetchMeter
from orchestrator.worker.data.lanes import LiveBatches
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.tuning.loader_tuner import LoaderTuner
from orchestrator.worker.world import World
from tests.support.fake_driver import FakeDriver
from tests.support.waiting import wait_for

pytestmark = pytest.mark.bench

STEP_S = 0.020
NUM_GPUS = 8
WATCHED_S = 20.0
PAIRS, SEGMENT_S = 10, 3.0
TRIES = 6
"""What else runs on the machine is not the sampler's doing: as many measurements, pooled, before one fails."""
SUPERVISOR = """
import sys
from pathlib import Path
from orchestrator.node.sample import Sampler
from orchestrator.tracking.journal import Journal
with Journal(Path(sys.argv[1]), attempt=0, node="here", rank=None) as journal, Sampler(journal):
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def supervisor(folder: Path, driver: FakeDriver) -> Iterator[int]:
    """A process that samples as a supervisor does, and its id."""
    command = [sys.executable, "-c", SUPERVISOR, str(folder)]
    process = subprocess.Popen(command, env={**os.environ, **driver.env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def on_a_core_s(pid: int) -> float:
    """What the threads of a process have been on a core."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


@contextmanager
def ranks() -> Iterator[list[int]]:
    """A process for each GPU."""
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(NUM_GPUS)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_sampler_of_a_node_takes_less_than_a_thousandth_of_a_core(tmp_path: Path) -> None:
    driver = FakeDriver(tmp_path)
    with ranks() as pids, supervisor(tmp_path / "run", driver) as pid:
        driver.says(count=NUM_GPUS, **{f"pid_{gpu}": rank for gpu, rank in enumerate(pids)})
        time.sleep(3.0)
        for _ in range(TRIES):
            before, began = on_a_core_s(pid), time.monotonic()
            time.sleep(WATCHED_S)
            share = (on_a_core_s(pid) - before) / (time.monotonic() - began)
            print(f"\nsampling {NUM_GPUS} GPUs and the host, with the journal: {share:.4%} of a core")
            if share < 0.001:
                break
    samples = [record["values"] for _, record in read_journal_dir(tmp_path / "run") if record["kind"] == "system"]
    assert len(samples) >= 2 and all(f"gpu/{NUM_GPUS - 1}/utilization_percent" in one for one in samples[1:])
    assert share < 0.001


def test_what_a_loader_is_tuned_by_takes_less_than_a_hundredth_of_a_step(tmp_path: Path) -> None:
    """By the time on a core: how long a step takes on a shared machine says less."""
    meter, num_steps = FetchMeter(), 3000
    with (
        World(0, 1, 0, 1, 0).connected(torch.device("cpu")) as peers,
        Journal(tmp_path, attempt=0, node="here", rank=0) as journal,
    ):
        batches = LiveBatches(iter(()), lambda draws, workers, prefetch: iter(()), workers=2)
        tuner = LoaderTuner(batches, peers, journal, applies=True, steps_left=lambda: 10**6)
        began = time.thread_time()
        for step in range(1, num_steps + 1):
            meter.begin()
            cost = meter.end()
            batches.costs.append(FetchCost(0.01 + cost.run_s, 0.0, 0.0))
            tuner.stepped(step, time_s=STEP_S, waited_s=0.0, num_micro_steps=1)
        share = (time.thread_time() - began) / num_steps / STEP_S
    print(f"\nmeasuring and deciding: {share:.3%} of a step of 20 ms")
    assert share < 0.01


def steps_a_second(seconds: float) -> float:
    """Of a step that only computes, about 20 ms."""
    matrix = torch.ones(900, 900)
    began = time.perf_counter()
    for number in itertools.count(1):
        (matrix @ matrix).sum().item()
        if (elapsed := time.perf_counter() - began) >= seconds:
            return number / elapsed
    raise AssertionError


def gpu_events(run: Path) -> list[str]:
    """What was told of the driver."""
    return [record["detail"]["what"] for _, record in read_journal_dir(run) if record.get("name") == GPU]


def test_a_driver_that_hangs_for_half_a_minute_does_not_move_the_step_time(tmp_path: Path) -> None:
    """In turns with no sampler at all: the supervisor is stopped, while its driver hangs on."""
    driver, ratios = FakeDriver(tmp_path), []
    for attempt in range(TRIES):
        driver.says()
        run = tmp_path / f"run-{attempt}"
        with supervisor(run, driver) as pid:
            time.sleep(2.0)
            driver.says(hang=1)
            for number in range(PAIRS):
                speeds = {}
                for is_watched in (True, False) if number % 2 else (False, True):
                    os.kill(pid, signal.SIGCONT if is_watched else signal.SIGSTOP)
                    speeds[is_watched] = steps_a_second(SEGMENT_S)
                ratios.append(speeds[True] / speeds[False])
            os.kill(pid, signal.SIGCONT)
            wait_for(partial(gpu_events, run))
        assert ["has not answered" in what for what in gpu_events(run)] == [True]
        ratio = statistics.median(ratios)
        print(f"\nsteps beside a driver that hangs: {ratio:.3f} of their speed with no sampler at all")
        if ratio >= 0.99:
            return
    assert ratio >= 0.99


def test_the_signs_of_life_of_a_step_cost_about_a_microsecond(tmp_path: Path) -> None:
    """0.8 us for the two signs of a step where nothing else runs; the bound is for a machine with neighbours."""
    make_pulse(tmp_path, 3)
    pulse = Pulse.of_rank({PULSE_VARIABLE: str(tmp_path), "RANK": "3"})

    def step() -> None:
        pulse.backward()
        pulse.stepped(1)

    assert min(timeit.repeat(step, number=2000, repeat=10)) / 2000 < 10e-6
