"""The history of a run's attempts: what each end cost, and the share of the time that counts."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.causes import IN_WORDS, in_words
from orchestrator.job.verdict import Cause, Verdict
from orchestrator.run_dir import RunDir
from orchestrator.tracking.attempts import History, Told, history_of, read_history
from orchestrator.tracking.step_times import AttemptSteps, StepTimes
from tests.support.attempts import even_steps, leave_attempt


def history(run: RunDir, *, now: float | None = None) -> History:
    return read_history(run, StepTimes(run.path), now=now)


def lost(made: AttemptSteps | None, following: AttemptSteps | None = None, **verdict: Any) -> int | None:
    """The lost steps of one attempt."""
    steps = {number: each for number, each in ((0, made), (1, following)) if each is not None}
    told = [Told(0, {}, verdict)] + ([Told(1, {}, {})] if following else [])
    return history_of(told, steps, productive_s=0.0).attempts[0].lost_steps


def test_a_lost_node_costs_steps_and_a_restart(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    ended = {"outcome": "failed", "cause": "node_lost", "reason": "node2 is lost", "then": "attempt 001: on node1"}
    leave_attempt(run, started_at=1000, steps=even_steps(1, 60, begins_at=1010), ended_at=1085, **ended)
    steps = even_steps(51, 100, begins_at=1120)
    leave_attempt(run, started_at=1090, steps=steps, nodes=["node1"], outcome="done", cause="done", ended_at=1200)
    told = history(run)
    first, second = told.attempts
    assert (first.started_at, first.ended_at, first.nodes, first.job_id) == (1000, 1085, ("node1", "node2"), "41")
    assert (first.first_step, first.last_step, first.lost_steps, first.restart_s) == (1, 60, 10, 51.0)
    assert (first.why, first.then) == ("a node was lost: node2 is lost", "attempt 001: on node1")
    assert (second.first_step, second.last_step, second.lost_steps, second.restart_s) == (51, 100, 0, None)
    assert (told.productive_s, told.wall_s, told.effective_training_time_ratio) == (100, 200, 0.5)


def test_a_run_at_work_is_measured_until_now(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    leave_attempt(run, started_at=1000, steps=even_steps(1, 30, begins_at=1010))
    assert (history(run, now=1060).wall_s, history(run, now=1060).effective_training_time_ratio) == (60, 0.5)
    assert history(run, now=1060).attempts[0].why == ""


def test_a_run_whose_job_is_gone_without_a_verdict_ends_with_its_last_step(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    leave_attempt(run, started_at=1000, steps=even_steps(1, 30, begins_at=1010))
    assert history(run).wall_s == 40


def test_an_attempt_that_made_no_step_is_passed_over_by_the_restart_that_it_delayed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    leave_attempt(run, started_at=0, steps=even_steps(1, 5, begins_at=0), outcome="failed", ended_at=6)
    leave_attempt(run, started_at=10, outcome="failed", cause="launch", ended_at=20)
    leave_attempt(run, started_at=30, steps=even_steps(4, 6, begins_at=39), outcome="done", ended_at=43)
    told = [(each.lost_steps, each.restart_s) for each in history(run).attempts]
    assert told == [(2, 35.0), (None, None), (0, None)]


def test_a_command_that_tells_no_steps_has_no_ratio(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    leave_attempt(run, started_at=0, outcome="done", cause="done", ended_at=50)
    told = history(run)
    assert (told.wall_s, told.productive_s, told.effective_training_time_ratio) == (50, None, None)
    assert told.attempts[0].lost_steps is None


def test_a_run_without_attempts_has_no_history(tmp_path: Path) -> None:
    none = {"attempts": [], "effective_training_time_ratio": None, "productive_s": None, "wall_s": None}
    assert history(RunDir(tmp_path)).as_json() == none | {"stragglers": []}


def test_a_file_that_is_no_json_counts_as_none(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    attempt = leave_attempt(run, started_at=5)
    attempt.verdict.write_text("{")
    attempt.driver.write_text("[]")
    (told,) = history(run).attempts
    assert (told.started_at, told.nodes, told.cause) == (None, (), None)


MADE = AttemptSteps(1, 60, 0, 60_000, num_made_again=10)
UNHEARD = AttemptSteps(1, 57, 0, 57_000, num_made_again=7)
NEXT = AttemptSteps(51, 90, 0, 0)


@pytest.mark.parametrize(
    ("made", "following", "verdict", "expected"),
    [
        pytest.param(MADE, NEXT, {"outcome": "failed"}, 10, id="made again"),
        pytest.param(UNHEARD, NEXT, {"outcome": "failed", "failed_step": 61}, 10, id="three of them never journaled"),
        pytest.param(MADE, None, {"outcome": "failed", "checkpoint_step": 50}, 10, id="not resumed yet"),
        pytest.param(MADE, None, {"outcome": "failed", "checkpoint_step": None}, 60, id="no checkpoint"),
        pytest.param(MADE, None, {"outcome": "failed"}, None, id="an older version's verdict"),
        pytest.param(MADE, None, {"outcome": "stopped", "step": 60, "checkpoint_step": 50}, 0, id="saved when asked"),
        pytest.param(MADE, None, {"outcome": "done", "step": 60}, 0, id="done"),
        pytest.param(MADE, None, {}, None, id="at work"),
        pytest.param(None, NEXT, {"outcome": "failed"}, None, id="made none"),
    ],
)
def test_lost_steps(
    made: AttemptSteps | None, following: AttemptSteps | None, verdict: dict[str, Any], expected: int | None
) -> None:
    assert lost(made, following, **verdict) == expected


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ({"outcome": "done", "reason": "trained to the end: step 9"}, "trained to the end: step 9"),
        ({"outcome": "stopped", "reason": "saved at step 4"}, "asked to end by a signal: saved at step 4"),
        ({"outcome": "failed", "reason": "rank 0: no"}, "failed, nobody says why: rank 0: no"),
        ({"outcome": "failed", "out_of_memory": {"step": 3}}, "a rank's device ran out of memory"),
    ],
)
def test_an_older_versions_verdict_has_a_cause_too(verdict: dict[str, Any], why: str) -> None:
    assert history_of([Told(0, {}, verdict)], {}, productive_s=0.0).attempts[0].why == why


def test_every_cause_has_words_and_a_newer_versions_has_its_own() -> None:
    assert set(IN_WORDS) == set(get_args(Cause))
    assert in_words("struck_by_lightning") == "struck by lightning"


def test_what_the_driver_writes_is_what_is_read(tmp_path: Path) -> None:
    verdict = Verdict("failed", "rank 3: hung", 3, "node2", cause="hung", failed_step=8, checkpoint_step=5)
    steps = even_steps(1, 7, begins_at=0)
    leave_attempt(RunDir(tmp_path), started_at=0, steps=steps, **verdict.as_json(ended_at=9, then="requeued"))
    (told,) = history(RunDir(tmp_path)).attempts
    assert (told.cause, told.why, told.then) == ("hung", "a rank hung: rank 3: hung", "requeued")
    assert (told.ended_at, told.last_step, told.lost_steps) == (9, 7, 2)


@given(seed=st.integers(0, 10_000))
def test_the_ratio_is_within_a_percent_of_what_really_happened(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Attempts that start up, train at an uneven pace, evaluate, save and are killed in mid-step; a queue between them.

    What counts is known second by second: the seconds of a step that no restart takes back.
    """
    random, run, clock = Random(seed), RunDir(tmp_path_factory.mktemp("run")), 1_700_000_000.0
    begun_at, counts, saved = clock, dict[int, float](), 0
    for number in range(num_attempts := random.randint(1, 5)):
        is_last = number == num_attempts - 1
        started_at, steps, step = clock, [], saved
        clock += random.uniform(0.5, 60)
        counts = {made: seconds for made, seconds in counts.items() if made <= saved}
        heard = saved
        for _ in range(random.randint(1 if is_last else 0, 40)):
            step, seconds = step + 1, random.uniform(0.01, 3)
            clock += seconds
            steps.append((step, clock, seconds))
            counts[step] = seconds
            if random.random() < 0.2:
                clock, saved, heard = clock + random.uniform(0, 2), step, step
        if not is_last:  # killed: the last steps are not journaled, and are not saved either
            steps = [each for each in steps if each[0] <= max(heard, step - random.randint(0, 3))]
        clock += random.uniform(0, 20)
        ending = {"outcome": "done", "step": step} if is_last else {"outcome": "failed", "checkpoint_step": saved}
        leave_attempt(run, started_at=started_at, steps=steps, ended_at=clock, **ending)
        ended_at, clock = clock, clock + random.choice((0, 5, 400))
    told = history(run)
    assert told.effective_training_time_ratio == pytest.approx(sum(counts.values()) / (ended_at - begun_at), rel=0.01)
