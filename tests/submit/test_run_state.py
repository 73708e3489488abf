"""What is told of a run: its state when its job left no verdict, and its last metrics."""

from __future__ import annotations

import json
from math import inf, nan
from pathlib import Path

from orchestrator.cli.render.runs import outcome, progress_line
from orchestrator.files import make_private_dir, write_json
from orchestrator.submit.runs import status_of
from orchestrator.tracking.journal import Journal
from tests.job.trained import make_run
from tests.worker.recipes import POINTS


def test_a_job_that_ended_without_a_verdict_is_lost_unless_it_was_cancelled_while_it_waited(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", POINTS)
    assert status_of(run, "pending").state == "pending"
    assert status_of(run, "ended").state == "lost"
    write_json(run.cancel, {"requested_at": 1.0})
    assert status_of(run, "pending").state == "pending"
    assert status_of(run, "ended").state == "stopped"


def test_a_loss_that_is_no_number_is_told_as_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", POINTS)
    with Journal(run.path, attempt=0, node="node1", rank=0) as journal:
        journal.steps([(7, 1, {"train/loss": nan})])
    status = status_of(run, "running")
    assert progress_line(status).endswith(": running, step 7/21, loss nan")
    make_private_dir(run.attempt(0).path)
    write_json(run.attempt(0).verdict, {"final": True, "outcome": "done", "reason": "", "metrics": {"val/loss": -inf}})
    status = status_of(run, "ended")
    assert outcome(status).splitlines()[1:] == ["val/loss         -inf"]
    json.dumps(status.as_json(), allow_nan=False)
