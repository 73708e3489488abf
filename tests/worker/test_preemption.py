"""Asked to end, all ranks save at the next step boundary; another world goes on as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.files import read_json
from orchestrator.processes import handles_signal
from orchestrator.run_dir import RunDir
from orchestrator.worker.preemption import DEADLINE, NUM_VOTES, STOP_SIGNALS, StopRequest, agreed_stop
from tests.support.waiting import wait_for
from tests.support.worlds import events_of, make_run, metrics_of, run_world, sample_ids_of, world_of
from tests.worker.recipes import CODE, POINTS

SLOWLY = {"DELAY_S": "0.02"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "run", POINTS, CODE)


def test_a_run_stopped_twice_and_resumed_on_other_worlds_repeats_and_skips_nothing(
    run: RunDir, uninterrupted: RunDir
) -> None:
    """Two ranks until SIGTERM reaches one of them in mid-epoch, three until SIGUSR1 comes thrice, one to the end.

    Before the last resume a bit of the newest checkpoint flips: it goes on from the one before, with an event.
    """
    with world_of(run, 2, **SLOWLY) as world:
        world.wait_for_step(5)
        world.signal(signal.SIGTERM, rank=1)
        assert world.wait() == [0, 0], world.log()
        first = read_json(world.attempt.stop)
        assert not world.attempt.done.exists()
    assert first["signal"] == "SIGTERM" and 5 <= first["step"] < 20
    assert first["consumed_samples"] == 16 * first["step"]
    assert (run.checkpoints / first["checkpoint"] / "COMMIT").exists()

    with world_of(run, 3, DELAY_S="0.06") as world:
        world.wait_for_step(first["step"] + 4)
        for _ in range(3):
            world.signal(signal.SIGUSR1, rank=0)
            time.sleep(0.01)
        assert world.wait() == [0, 0, 0], world.log()
        second = read_json(world.attempt.stop)
    assert second["signal"] == "SIGUSR1" and second["step"] > first["step"]

    flip_a_bit(run.checkpoints / second["checkpoint"] / "model.pt")
    last = run_world(run, 1)
    assert [event["why"] for event in events_of(run, "damaged")] == ["model.pt has changed"]
    assert read_json(last.done)["step"] == 21

    whole, pieces = metrics_of(uninterrupted, "train/loss"), metrics_of(run, "train/loss")
    assert pieces.keys() == whole.keys()
    assert max(abs(pieces[step] / whole[step] - 1) for step in whole) <= 1e-12
    assert sample_ids_of(run) == sample_ids_of(uninterrupted)
    assert metrics_of(run, "val/accuracy") == metrics_of(uninterrupted, "val/accuracy")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_signal_before_the_first_step_leaves_the_initial_state(run: RunDir) -> None:
    with world_of(run, 2, is_anew=True) as world:
        wait_for(lambda: handles_signal(world.ranks[0].pid, signal.SIGUSR2))
        world.signal(signal.SIGUSR2, rank=0)
        assert world.wait() == [0, 0], world.log()
        stop = read_json(world.attempt.stop)
    assert stop["signal"] == "SIGUSR2"
    assert (stop["step"], stop["checkpoint"]) == (0, "step-00000000")


def test_a_finished_run_that_is_started_again_is_still_finished(run: RunDir) -> None:
    first = run_world(run, 1)
    again = read_json(run_world(run, 1).done)
    assert again["metrics"] == read_json(first.done)["metrics"]
    assert (again["step"], again["consumed_samples"]) == (21, 322)


def test_all_ranks_agree_on_the_first_signal_that_any_of_them_saw() -> None:
    votes = [0.0] * NUM_VOTES
    assert agreed_stop(votes) is None
    votes[-1] = 1.0
    assert agreed_stop(votes) == DEADLINE
    votes[STOP_SIGNALS.index(signal.SIGUSR1)] = 3.0
    votes[STOP_SIGNALS.index(signal.SIGUSR2)] = 1.0
    assert agreed_stop(votes) == "SIGUSR1"
    assert not StopRequest().is_set


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_every_signal_that_torchrun_forwards_is_survived(number: signal.Signals) -> None:
    code = (
        "import os; from orchestrator.worker.preemption import StopRequest; stop = StopRequest(); stop.install();"
        f"os.kill(os.getpid(), {int(number)}); os.kill(os.getpid(), {int(number)}); print(stop.as_votes())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert out.stdout.count("1.0") == 1
