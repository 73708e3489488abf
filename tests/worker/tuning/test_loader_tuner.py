"""Loader processes tuned in real worlds: the same science, all ranks alike, and only what is asked for."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch

from orchestrator.recipe.read import recipe_from_stored
from orchestrator.run_dir import RunDir
from orchestrator.tracking.events import ADVICE, PREFETCH, TUNING, WORKERS
from orchestrator.tracking.journal import Journal
from orchestrator.tuned import Tuned, keep_tuned, read_tuned
from orchestrator.tuning.loader_law import IDLE_SHARE, LEAST_GAIN
from orchestrator.worker.data import room
from orchestrator.worker.data.datasets import Draw, open_datasets
from orchestrator.worker.data.fetch_cost import FetchMeter
from orchestrator.worker.data.lanes import LiveBatches, open_stream
from orchestrator.worker.failure import killed_loaders, kind_of
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.targets import UserCode
from orchestrator.worker.train import train
from orchestrator.worker.tuning.loader_tuner import METRICS, LoaderTuner
from orchestrator.worker.tuning.step_times import without_stalls
from orchestrator.worker.world import World
from tests.support.waiting import wait_for
from tests.support.worlds import (
    add_attempt,
    events_of,
    failure_of,
    make_run,
    metrics_of,
    run_world,
    sample_ids_of,
    world_of,
)
from tests.worker.recipes import CODE, POINTS, recipe

CPU = torch.device("cpu")
NUM_STEPS = 120
NOISY = [{**POINTS["datasets"][0], "args": {"size": 37, "noise": 0.1}}, POINTS["datasets"][1]]
SLOW_TO_FETCH = "0.008"
"""Seconds for an item, sixteen of which are a step."""


def prepared(folder: Path, tuning: str, *, steps: int = NUM_STEPS) -> RunDir:
    wanted = recipe(
        POINTS,
        datasets=NOISY,
        validation=[],
        metrics={},
        duration={"samples": 16 * steps},
        tuning={"workers": tuning},
    )
    return make_run(folder, wanted, CODE)


def trained(folder: Path, world_size: int, tuning: str, *, of_rank: dict[int, dict[str, str]]) -> tuple[RunDir, str]:
    """A run, and what its ranks have printed."""
    run = prepared(folder, tuning)
    with world_of(run, world_size, of_rank=of_rank) as world:
        assert world.wait() == [0] * world_size, world.log()
        return run, world.log()


@pytest.mark.parametrize(
    ("world_size", "slow_rank"), [(1, 0), (2, 1)], ids=["one rank", "two ranks, the second of which waits"]
)
def test_a_run_that_waits_for_data_gets_more_processes_and_the_same_losses(
    tmp_path: Path, world_size: int, slow_rank: int
) -> None:
    tuned, _ = trained(tmp_path / "tuned", world_size, "auto", of_rank={slow_rank: {"DELAY_S": SLOW_TO_FETCH}})
    untuned, _ = trained(tmp_path / "untuned", world_size, "off", of_rank={})
    first = events_of(tuned, TUNING)[0]
    assert first["from"] == 0 and first["to"] >= 2 and first["applied"], first
    assert first["wait_s"] / first["step_s"] > IDLE_SHARE and first["other_s"] > first["run_s"]
    assert first["predicted_s"] < first["step_s"] and "of a step is waiting for data" in first["why"]
    assert metrics_of(tuned, METRICS[WORKERS])[first["step"]] == first["to"]
    assert metrics_of(tuned, "train/loss") == metrics_of(untuned, "train/loss")
    assert sample_ids_of(tuned) == sample_ids_of(untuned)


def test_where_some_samples_take_much_longer_more_are_ready_and_steps_are_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One micro-batch of thirteen takes 0.2 s, in which a rank at 12 ms a step has used up what four processes had."""
    run = make_run(tmp_path / "run", recipe(POINTS, tuning={"workers": "auto"}), CODE)
    code, wanted = UserCode(run.snapshot_recipe), recipe_from_stored(run.recipe.read_text(), "recipe.yaml")
    monkeypatch.setattr(code.load("data:Points"), "__getitem__", _slow_at_0)
    datasets = open_datasets(code, wanted.datasets[:1], seed=5, where="datasets")
    draws = (Draw((0 if number % 13 == 3 else 1, 2, 3), (0, 0, 0), 3) for number in itertools.count())
    batches = open_stream(datasets, draws, wanted, device=CPU, workers=4, prefetch=2)
    with World(0, 1, 0, 1, 0).connected(CPU) as peers, Journal(run.path, attempt=0, node="here", rank=0) as journal:
        tuner = LoaderTuner(batches, peers, journal, applies=True, steps_left=lambda: 5000)
        for step in range(1, 600):
            began, waited_before_s = time.perf_counter(), batches.waited_s
            assert isinstance(batches, LiveBatches) and next(batches).ids[1:] == (2, 3)
            time.sleep(0.012)
            time_s = time.perf_counter() - began
            tuner.stepped(step, time_s=time_s, waited_s=batches.waited_s - waited_before_s, num_micro_steps=1)
    batches.close()
    tried, kept, *_ = [event for event in events_of(run, TUNING) if event["knob"] == PREFETCH]
    assert (tried["from"], tried["to"], tried["applied"]) == (2, 8, True) and tried["spread"] > 1, tried
    assert kept["kept"] == 8 and kept["gain"] >= LEAST_GAIN, kept
    assert metrics_of(run, METRICS[PREFETCH])[tried["step"]] == 8 and batches.prefetch >= 8


def _slow_at_0(self: object, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    time.sleep(0.001 if index else 0.2)
    return torch.zeros(4), torch.tensor(index)


def test_a_step_in_which_the_machine_stood_still_does_not_count_and_waits_between_bursts_do() -> None:
    """Eight processes bring eight micro-batches at once, then nothing for a while: what counts are the few long steps.

    Taken for outliers, they made 8 times the speed 27 times.
    """
    bursts = [*[(0.001, 0.0)] * 5, (0.041, 0.040)] * 10
    assert without_stalls(bursts) == bursts
    assert without_stalls([*bursts, (3.0, 2.9), (9.0, 0.0)]) == bursts
    assert without_stalls([(3.0, 2.9)]) == [(3.0, 2.9)]


def test_a_suggestion_is_told_once_and_changes_nothing(tmp_path: Path) -> None:
    run, log = trained(tmp_path / "run", 1, "suggest", of_rank={0: {"DELAY_S": SLOW_TO_FETCH}})
    (told,) = events_of(run, TUNING)
    assert told["to"] >= 2 and not told["applied"] and metrics_of(run, METRICS[WORKERS]) == {}
    with_it = f"orchestrate: step {told['step']}: try loader.workers: {told['to']} (now 0): "
    assert with_it in log


def test_an_attempt_begins_with_what_an_earlier_one_has_found(tmp_path: Path) -> None:
    run = prepared(tmp_path / "run", "auto")
    keep_tuned(run, Tuned(3, most_workers=4))
    run_world(run, 2, DELAY_S="0.03")
    told = events_of(run, TUNING)
    assert (told[0]["from"], told[0]["to"]) == (3, 4), "it waits, and would have many more if it could"
    assert max(one.get("to", 0) for one in told) == 4


def test_a_loader_process_that_is_killed_costs_a_relaunch_with_fewer_and_no_step(tmp_path: Path) -> None:
    """As the kernel does it where memory does not suffice for so many."""
    run = prepared(tmp_path / "run", "auto")
    with world_of(run, 1, DELAY_S=SLOW_TO_FETCH) as world:
        rank = psutil.Process(world.ranks[0].pid)
        wait_for(lambda: any(one.get("to", 0) >= 2 for one in events_of(run, TUNING)), timeout_s=60)
        wait_for(lambda: len(rank.children()) >= 2, timeout_s=30)
        os.kill(rank.children()[-1].pid, signal.SIGKILL)
        assert world.wait() == [1]
        failure = failure_of(world.attempt)
    assert failure["type"] == "LoaderKilled" and "a loader process was killed" in failure["message"], failure
    before, learnt = events_of(run, TUNING), read_tuned(run.tuned)
    most = max(one.get("to", 0) for one in before)
    assert learnt is not None and learnt.workers <= learnt.most_workers < most
    made = max(metrics_of(run, "train/loss"))
    run_world(run, 1, DELAY_S=SLOW_TO_FETCH)
    after = events_of(run, TUNING)[len(before) :]
    assert after[0]["from"] == learnt.workers and all(one.get("to", 0) <= learnt.most_workers for one in after)
    assert min(metrics_of(run, "train/loss", attempt=1)) in (made, made + 1)
    untuned, _ = trained(tmp_path / "untuned", 1, "off", of_rank={})
    assert metrics_of(run, "train/loss") == metrics_of(untuned, "train/loss")


def test_there_are_no_more_processes_than_there_is_memory_for_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Room for two at a time: half of five shares."""
    monkeypatch.setattr(room, "free_memory_bytes", lambda: 500)
    monkeypatch.setattr(room, "anonymous_bytes", lambda: 100)
    monkeypatch.setattr(room, "unshared_bytes", lambda pid: 100)
    monkeypatch.setenv("DELAY_S", SLOW_TO_FETCH)
    run = prepared(tmp_path / "run", "auto")
    train(run, add_attempt(run, 1), {}, StopRequest())
    assert [one["to"] for one in events_of(run, TUNING) if "to" in one] == [2]
    assert read_tuned(run.tuned) == Tuned(2)
    told, *_ = [one["advice"] for one in events_of(run, ADVICE) if "for memory" in one["advice"]]
    assert "loader processes would keep up, and only 2 can be started at once, for memory" in told
    assert told in capfd.readouterr().err


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("DataLoader worker (pid 5) is killed by signal: Killed. ", "LoaderKilled"),
        ("DataLoader worker (pid(s) 5, 6) exited unexpectedly", "LoaderKilled"),
        ("DataLoader worker (pid 5) is killed by signal: Bus error. It is possible that ...", "LoaderKilled"),
        ("DataLoader worker (pid 5) exited unexpectedly with exit code 1. Details are lost ...", "RuntimeError"),
        ("DataLoader worker (pid 5) is killed by signal: Segmentation fault. ", "RuntimeError"),
    ],
)
def test_a_loader_process_that_ends_by_a_fault_of_its_own_is_not_said_to_be_killed(message: str, kind: str) -> None:
    error = RuntimeError(message)
    assert kind_of(error) == kind and (5 in killed_loaders(error)) == (kind == "LoaderKilled")


def test_where_the_memory_of_a_process_cannot_be_read_its_ranks_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(pid: int) -> int:
        raise FileNotFoundError(pid)

    monkeypatch.setattr(room, "unshared_bytes", unreadable)
    batches = LiveBatches(iter(()), lambda draws, workers, prefetch: iter(()), workers=0)
    monkeypatch.setattr(LiveBatches, "pids", [1])
    found = room.room_of(batches, num_ranks=1)
    assert found.worker_bytes > 1 << 20 and not found.has_workers


def test_fetching_is_divided_into_work_and_waiting() -> None:
    meter, began = FetchMeter(), 0
    meter.begin()
    while began < 3_000_000:
        began += 1
    cost = meter.end()
    assert cost.run_s > 0.01 and cost.other_s < cost.run_s
