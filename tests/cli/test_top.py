"""`orchestrate top`: a run that is watched, in a terminal and out of one."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.cli.render.runs import live_line
from orchestrator.cli.top import LAST_S
from orchestrator.submit.report import report_in
from orchestrator.submit.runs import status_of
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.report.text import live_screen
from tests.job.trained import make_run
from tests.support.attempts import journal_events, journal_samples, journal_waits, leave_attempt
from tests.support.command_line import TINY, orchestrate, run_to_its_end
from tests.worker.recipes import POINTS


def test_what_is_shown_is_of_the_last_minutes(tmp_path: Path) -> None:
    run, now = make_run(tmp_path / "points", POINTS), time.time()
    leave_attempt(run, started_at=now - 1000)
    steps = [(now - 400 + step, 1.0, 0.9 if step < 100 else 0.25) for step in range(400)]
    journal_waits(run, 0, steps)
    gpus = {"gpu/0/utilization_percent": 90.0, "gpu/1/utilization_percent": 30.0}
    journal_samples(run, "node1", [(now - 350, {"gpu/0/utilization_percent": 1.0}), (now - 10, gpus)])
    old, new = ({"step": step, "knob": "loader.workers", "kept": 4, "gain": 0.5} for step in (20, 300))
    journal_events(run, 0, [(now - 380, "tuning", old), (now - 100, "tuning", new)])
    told = live_screen(report_in(run, "running", since=now - LAST_S), "points: running").splitlines()
    assert told[0] == "run        points: running"
    assert told[1].startswith("waiting    ") and told[1].endswith("25% of the steps' time was waiting for data")
    assert told[2].endswith("60% of the time some kernel ran, least node1 gpu 1: 30%")
    assert told[3:] == [
        "tuning     step 300: 4 loader processes kept: 1.50 x the speed",
        "bound by   input: ranks wait for data",
    ]


def test_the_first_line_has_speed_and_end(tmp_path: Path) -> None:
    run = make_run(tmp_path / "points", POINTS)
    assert live_line(status_of(run, "running")) == "points: running"
    with Journal(run.path, attempt=0, node="node1", rank=0) as journal:
        journal.steps([(7, 1, {"train/loss": 0.5, "train/step_time_s": 10.0, "train/samples_per_s": 1600.0})])
    line = "points: running, step 7/21, loss 0.5, 10 s a step, 1,600 samples/s, about 0:02:20 left"
    assert live_line(status_of(run, "running")) == line


def test_out_of_a_terminal_it_is_shown_once(tmp_path: Path) -> None:
    run = run_to_its_end(TINY, cwd=tmp_path)
    shown = orchestrate("top", run.name, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"run        {run.name}: done, step 16/16") and "bound by" in shown.stdout


def test_in_a_terminal_it_is_shown_until_the_run_ends(tmp_path: Path) -> None:
    submitted = orchestrate("submit", TINY, "--json", cwd=tmp_path)
    name = Path(json.loads(submitted.stdout)["run_dir"]).name
    ours, theirs = pty.openpty()
    top = subprocess.Popen(
        (sys.executable, "-m", "orchestrator.cli", "top", name),
        cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = bytearray()
    while chunk := _read(ours):
        shown += chunk
    top.kill()
    assert top.wait() == 0, shown.decode()
    assert f"{name}: done, step 16/16" in shown.decode()


def _read(terminal: int) -> bytes:
    """What is shown next; nothing when its process has closed it, or shows nothing for a minute."""
    if not select.select([terminal], [], [], 60)[0]:
        return b""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""
