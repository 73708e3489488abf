"""Which attempts count for what comes next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.files import make_private_dir, write_json
from orchestrator.job.history import History, read_history
from orchestrator.job.verdict import Verdict
from orchestrator.run_dir import RunDir

KILLED = Verdict("failed", "killed", cause="killed", checkpoint_step=20)
LOST = Verdict("failed", "node2 is lost", cause="node_lost", checkpoint_step=30, left_out=("node2",))


def with_verdicts(folder: Path, *told: tuple[Verdict, str | None] | None) -> RunDir:
    """A run with these verdicts and what came next; None for an attempt without one."""
    run = RunDir(make_private_dir(folder))
    make_private_dir(run.attempts)
    for number, one in enumerate(told):
        make_private_dir(run.attempt(number).path)
        if one is not None:
            verdict, then = one
            write_json(run.attempt(number).verdict, verdict.as_json(ended_at=1.0, then=then))
    return run


def test_what_lies_before_a_final_verdict_does_not_count_but_its_checkpoint_is_where_one_began(tmp_path: Path) -> None:
    run = with_verdicts(tmp_path / "run", (KILLED, "again"), (KILLED, None), (LOST, "again"), None)
    assert read_history(run, before=3) == History((LOST,), checkpoint_step=20)
    assert read_history(run, before=1) == History((KILLED,), None)


def test_what_lies_before_a_resume_does_not_count_though_no_verdict_was_final(tmp_path: Path) -> None:
    """As after a job whose driver was killed."""
    run = with_verdicts(tmp_path / "run", (LOST, "again"), None, (KILLED, "again"), None)
    assert len(read_history(run, before=3).verdicts) == 3
    write_json(run.resume, {"new_order": False, "first_attempt": 2})
    assert read_history(run, before=3).verdicts == (KILLED,)


def test_an_attempt_without_a_verdict_lost_its_driver(tmp_path: Path) -> None:
    (verdict,) = read_history(with_verdicts(tmp_path / "run", None, None), before=1).verdicts
    assert (verdict.cause, verdict.reason) == ("node_lost", "its driver left no verdict")


def test_a_node_is_left_out_for_the_rest_of_its_job_and_not_of_the_next_one() -> None:
    requeued = replace(KILLED, successor="42")
    assert History((LOST, KILLED)).left_out == ("node2",)
    assert History((LOST, requeued)).left_out == ()
    assert History((requeued, LOST)).left_out == ("node2",)
