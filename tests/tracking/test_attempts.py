"""What MLflow is told of a run that has several attempts."""

from __future__ import annotations

from pathlib import Path

from orchestrator.tracking.describe import attempt_tags, read_ending
from orchestrator.tracking.redact import Redactor
from tests.support.run_dirs import end_attempt, make_run_dir, start_attempt


def test_an_attempt_that_another_one_follows_is_neither_the_outcome_nor_the_end(tmp_path: Path) -> None:
    run = make_run_dir(tmp_path / "run", uri="sqlite:///nowhere.db")
    end_attempt(start_attempt(run), "failed", final=False)
    assert "orchestrate.outcome" not in attempt_tags(run, Redactor()) and read_ending(run) is None
    end_attempt(start_attempt(run))
    tags = attempt_tags(run, Redactor())
    assert (tags["orchestrate.attempt"], tags["orchestrate.outcome"]) == ("1", "done")
    assert read_ending(run) is not None
