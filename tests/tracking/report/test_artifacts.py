"""The report among the artifacts of a run that has ended: as a page and as data, and no secret in either."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pytest

from orchestrator.files import write_json
from orchestrator.run_dir import RunDir
from orchestrator.tracking.describe import final_artifacts
from orchestrator.tracking.redact import Redactor
from tests.support.attempts import journal_events, journal_waits, leave_attempt
from tests.support.run_dirs import make_run_dir

BEGUN = 1_700_000_000.0
SECRET = "s3cr&t<value>"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = make_run_dir(tmp_path / "run", uri="sqlite:////data/mlflow.db")
    verdict = {"outcome": "failed", "cause": "user_code", "reason": f"login with {SECRET}"}
    attempt = leave_attempt(run, started_at=BEGUN, ended_at=BEGUN + 20, **verdict)
    write_json(attempt.plan, {"topology": {"world_size": 2, "accelerator": "cpu"}})
    return run


def artifacts(run: RunDir) -> dict[str, str]:
    return {name: text for name, text in final_artifacts(run, Redactor([SECRET])) if name.startswith("report/")}


def test_the_report_is_a_page_and_data_without_secrets(run: RunDir) -> None:
    journal_waits(run, 0, [(BEGUN + 10 + step, 1.0, 0.5) for step in range(8)])
    journal_events(run, 0, [(BEGUN + 12, "gpu", {"what": f"GPU 1 said {SECRET}"})])
    found = artifacts(run)
    assert sorted(found) == ["report/report.html", "report/report.json"]
    assert json.loads(found["report/report.json"])["waited_hours"] * 3600 == pytest.approx(2 * 4)
    assert "What was changed" in found["report/report.html"] and "login with" in found["report/report.html"]
    for text in found.values():
        assert SECRET not in text and escape(SECRET) not in text


def test_of_a_run_that_tells_no_steps_there_is_no_report(run: RunDir) -> None:
    assert artifacts(run) == {}


def test_a_journal_that_nobody_understands_is_passed_over(run: RunDir) -> None:
    journal_waits(run, 0, [(BEGUN + 10, 1.0, 0.5)])
    journal_events(run, 0, [(BEGUN, "tuning", {"kept": 4, "gain": "much"})])
    assert artifacts(run) == {}
