"""Steps as rank 0's journal tells of them: each counts once, as it was made last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.run_dir import RunDir
from orchestrator.tracking.events import STEP_TIME
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.step_times import StepTimes
from orchestrator.tracking.stragglers import Straggler, straggler_of
from tests.support.attempts import even_steps, journal_steps, journal_straggler


def read(run: RunDir) -> StepTimes:
    times = StepTimes(run.path)
    times.read()
    return times


def test_a_step_counts_once_as_it_was_made_last(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    journal_steps(run, 0, even_steps(1, 10, begins_at=0, seconds=1.0))
    journal_steps(run, 1, even_steps(7, 12, begins_at=100, seconds=2.0))
    times = read(run)
    assert times.productive_s == 6 * 1.0 + 6 * 2.0
    assert (times.by_attempt[0].first, times.by_attempt[0].last, times.by_attempt[0].num_made_again) == (1, 10, 4)
    assert (times.by_attempt[1].first, times.by_attempt[1].last, times.by_attempt[1].num_made_again) == (7, 12, 0)
    assert (times.by_attempt[0].last_ended_ms, times.by_attempt[1].first_ended_ms) == (10_000, 102_000)


def test_a_run_that_has_not_come_back_to_where_it_was_has_what_it_was_taken_back_to(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    journal_steps(run, 0, even_steps(1, 100, begins_at=0))
    journal_steps(run, 1, even_steps(51, 53, begins_at=200))
    journal_steps(run, 2, even_steps(41, 42, begins_at=300))
    times = read(run)
    assert times.productive_s == 42
    assert {number: made.num_made_again for number, made in times.by_attempt.items()} == {0: 60, 1: 3, 2: 0}


def test_steps_that_an_attempt_went_back_over_itself_are_not_lost_with_it(tmp_path: Path) -> None:
    """`on_non_finite_loss: roll_back`."""
    run = RunDir(tmp_path)
    journal_steps(run, 0, [*even_steps(1, 8, begins_at=0), *even_steps(5, 10, begins_at=8)])
    times = read(run)
    assert times.productive_s == 10 and times.by_attempt[0].num_made_again == 0
    assert (times.by_attempt[0].last, times.by_attempt[0].last_ended_ms) == (10, 14_000)


def test_the_journal_that_is_read_is_the_one_that_rank_0_writes_and_no_other(tmp_path: Path) -> None:
    for rank, node in ((0, "n1"), (1, "n1")):
        with Journal(tmp_path, attempt=0, node=node, rank=rank) as journal:
            journal.steps([(1, 1500, {STEP_TIME: 0.5 + rank}), (2, 2000, {STEP_TIME: 0.25})])
            journal.metrics(2, {"val/accuracy": 1.0})
            journal.tags({"orchestrate.new_order": "from step 1"})
            journal.window(3, [[1, 2]])
    assert read(RunDir(tmp_path)).productive_s == 0.75


def test_reading_again_reads_only_what_is_new(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    journal_steps(run, 0, even_steps(1, 5, begins_at=0))
    times = read(run)
    (file,) = run.journal.iterdir()
    file.write_bytes(b"x" * file.stat().st_size)  # nobody who reads this again finds the five steps
    journal_steps(run, 0, even_steps(6, 9, begins_at=5))
    journal_steps(run, 1, even_steps(8, 9, begins_at=50))
    times.read()
    assert times.productive_s == 9 and times.by_attempt[0].num_made_again == 2


@pytest.mark.parametrize("late", [1, 4])
def test_what_a_slow_file_system_shows_late_is_counted_in_its_place(tmp_path: Path, late: int) -> None:
    run = RunDir(tmp_path)
    journal_steps(run, 0, even_steps(1, 6, begins_at=0))
    journal_steps(run, 1, even_steps(5, 9, begins_at=100))
    times = read(run)
    journal_steps(run, 0, even_steps(7, 6 + late, begins_at=6))
    times.read()
    assert times.productive_s == 9 and times.by_attempt[0].num_made_again == 2 + late


def test_a_run_without_a_journal_has_no_steps(tmp_path: Path) -> None:
    times = read(RunDir(tmp_path))
    assert (times.productive_s, times.by_attempt) == (0, {})


def test_what_is_no_telling_of_a_slow_rank_is_passed_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    journal_steps(run, 0, even_steps(1, 9, begins_at=100))
    slow = Straggler(1, "node1", "data", times_median=2.0, cost=0.5, since_step=3)
    assert straggler_of({"kind": "event", "name": "straggler", "detail": slow.as_detail()}) == slow
    for detail in (None, [], {}, slow.as_detail() | {"rank": "1"}, slow.as_detail() | {"cost": None}):
        assert straggler_of({"kind": "event", "name": "straggler", "detail": detail}) is None
    assert straggler_of({"kind": "event", "name": "saved", "detail": slow.as_detail()}) is None
    journal_straggler(run, 0, slow)
    journal_straggler(run, 0, replace(slow, until_step=8))
    times = read(run)
    assert list(times.by_attempt[0].slow.values()) == [replace(slow, until_step=8)]
