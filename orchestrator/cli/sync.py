"""`orchestrate sync`: bring to MLflow what it has not got yet, after an outage or from a closed network."""

from __future__ import annotations

import click

from orchestrator.cli.options import current_folder, run_argument
from orchestrator.files import read_json
from orchestrator.known_runs import find_run
from orchestrator.submit.tracker import drain


@click.command("sync")
@run_argument
@click.option("--timeout-s", type=float, default=300.0, show_default=True, help="Give up after this many seconds.")
def command(run: str, timeout_s: float) -> int:
    """Replay the journal of RUN into MLflow; every point arrives exactly once, however often this is run."""
    run_dir = find_run(run, cwd=current_folder())
    return drain(run_dir, read_json(run_dir.environment) or {}, timeout_s=timeout_s)
