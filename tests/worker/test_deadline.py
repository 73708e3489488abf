"""A run stops by itself while there is time for its last save: all ranks at one step, and none without a step."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.files import read_json
from orchestrator.last_save import END_S, longest_save_s
from orchestrator.pulse import Phase
from orchestrator.run_dir import RunDir
from orchestrator.worker.deadline import Deadline, margin_s
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.world import Peers, World
from tests.support.worlds import make_run, metrics_of, run_world, sample_ids_of, world_of
from tests.worker.recipes import CODE, POINTS, recipe


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "run", POINTS, CODE)


def deadline(left_s: float, *, save_s: float = 0.0, leads: bool = True, patience_s: float = 20.0) -> Deadline:
    """Of a job with such saves that had hours when its steps began, and has so much time left before the first one."""
    pulse = Pulse()
    pulse.took(Phase.CHECKPOINT, save_s)
    found = Deadline(time.time() + 7200, patience_s)
    found.begin(pulse, leads=leads)
    found.ends_at = time.time() + left_s
    return found


@pytest.mark.parametrize(
    ("save_s", "step_s", "patience_s", "expected_s"),
    [
        (0.0, 0.0, 29.0, 29.0 + END_S),
        (0.0, 0.5, 29.0, 30.5 + END_S),
        (2.0, 0.5, 29.0, 7.5 + END_S),
        (41.0, 10.0, 29.0, 153.0 + END_S),
    ],
)
def test_the_margin_is_three_saves_three_steps_and_the_end(
    save_s: float, step_s: float, patience_s: float, expected_s: float
) -> None:
    """As long as no save is known, one is taken to need what the site leaves for it."""
    assert margin_s(save_s=save_s, step_s=step_s, patience_s=patience_s) == expected_s


def test_the_time_is_up_when_what_is_left_is_the_margin_and_never_before_a_step() -> None:
    late, early = deadline(END_S + 6 + 1, save_s=2.0), deadline(END_S + 6 + 9, save_s=2.0)
    assert not late.is_near()
    for one in (late, early):
        one.stepped(1.0)
    assert late.is_near() and not early.is_near()
    assert not deadline(math.inf).is_near()


def test_no_more_than_half_of_the_time_is_kept_aside_however_long_a_save_or_the_first_step_took() -> None:
    """Else a job with a compiled model, or one slow save among its checkpoints, would make one step and end."""
    pulse = Pulse()
    pulse.took(Phase.CHECKPOINT, 500.0)
    found = Deadline(time.time() + 200)
    found.begin(pulse, leads=True)
    found.stepped(60.0)
    assert not found.is_near()
    found.ends_at = time.time() + 99
    assert found.is_near()


def test_a_long_step_counts_until_it_is_long_ago() -> None:
    found = deadline(END_S + 60, save_s=1.0)
    found.stepped(30.0)
    assert found.is_near()
    for _ in range(16):
        found.stepped(0.1)
    assert not found.is_near()


def test_a_rank_that_does_not_lead_goes_by_the_first_ones_word_and_by_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = Peers(World(1, 2, 1, 2, 0), torch.device("cpu"))
    found = deadline(-100, leads=False)
    found.stepped(0.1)
    assert not found.is_near()
    for left_ms, is_near in ((-5, True), (60_000, False)):
        monkeypatch.setattr(Peers, "from_first", lambda self, number, told=left_ms: told)
        with found.shared(peers):
            assert found.is_near() is is_near
    assert not found.is_near()


def test_without_an_end_nothing_is_asked_of_others_and_nobody_stops() -> None:
    """A world of one without a process group: a collective would raise."""
    found, stop = Deadline(), StopRequest()
    found.begin(Pulse(), leads=True)
    stop.time_is_up = found.is_near
    found.stepped(1.0)
    with found.shared(Peers(World(0, 1, 0, 1, 0), torch.device("cpu"))):
        assert not stop.is_set


def test_two_ranks_stop_at_one_step_save_and_go_on_as_if_nothing_had_happened(
    run: RunDir, uninterrupted: RunDir
) -> None:
    ends_at = time.time() + END_S + 30
    with world_of(run, 2, told={"ends_at": ends_at, "shutdown_timeout_s": 5}, DELAY_S="0.3") as world:
        assert world.wait() == [0, 0], world.log()
        stop = read_json(world.attempt.stop)
    assert stop["deadline"] is True and "signal" not in stop
    assert 1 <= stop["step"] < 21 and stop["time"] < ends_at
    assert (run.checkpoints / stop["checkpoint"] / "COMMIT").exists()
    assert max(metrics_of(run, "train/loss")) == stop["step"]
    assert read_json(run_world(run, 1).done)["step"] == 21
    whole, pieces = metrics_of(uninterrupted, "train/loss"), metrics_of(run, "train/loss")
    assert pieces == pytest.approx(whole, rel=1e-12, abs=0)
    assert sample_ids_of(run) == sample_ids_of(uninterrupted)


def test_an_attempt_that_begins_too_late_makes_a_step_and_saves_it(run: RunDir) -> None:
    steps = []
    for _ in range(2):
        with world_of(run, 1, told={"ends_at": time.time() - 5}) as world:
            assert world.wait() == [0], world.log()
        steps.append(read_json(world.attempt.stop)["step"])
    assert 1 <= steps[0] < steps[1] <= 6


def test_an_evaluation_is_cut_short_on_every_rank_and_made_up_for_by_the_next_attempt(tmp_path: Path) -> None:
    """Each evaluation would take 40 s, the job has a few seconds more than its margin."""
    slow: dict[str, Any] = {
        "validation": [{**POINTS["validation"][0], "args": {"size": 400, "seed": 2}, "num_samples": 400}],  # type: ignore[index]
        "evaluation": {"every": {"steps": 2}, "batch": 1},
    }
    run = make_run(tmp_path / "run", recipe(POINTS, **slow), CODE)
    ends_at = time.time() + END_S + 45
    with world_of(run, 2, told={"ends_at": ends_at, "shutdown_timeout_s": 5}, DELAY_S="0.2") as world:
        assert world.wait() == [0, 0], world.log()
        stop = read_json(world.attempt.stop)
    assert stop["deadline"] is True and stop["step"] == 2
    assert stop["time"] < ends_at and not metrics_of(run, "val/accuracy")
    assert read_json(run_world(run, 1).done)["step"] == 21
    assert 2 in metrics_of(run, "val/accuracy")


def test_what_a_save_took_is_known_to_the_next_attempt(run: RunDir) -> None:
    assert longest_save_s(run) is None
    run_world(run, 1)
    took_s = longest_save_s(run)
    assert took_s is not None and 0 < took_s < 30
    newest = max(run.checkpoints.glob("step-*"))
    (newest / "manifest.json").write_text('{"write_s": 400.5}')
    assert longest_save_s(run) == 400.5
    (newest / "COMMIT").unlink()
    assert longest_save_s(run) < 400
