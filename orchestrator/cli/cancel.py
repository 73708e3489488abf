"""`orchestrate cancel`: the run saves, and ends; `resume` goes on from there."""

from __future__ import annotations

import time

import click

from orchestrator.cli.options import current_folder, run_argument
from orchestrator.cli.talk import say
from orchestrator.errors import Problem, RunError, SubmissionError
from orchestrator.files import read_json, write_json
from orchestrator.known_runs import find_run
from orchestrator.submit.backend import backend_named
from orchestrator.submit.runs import ALIVE, statuses


@click.command("cancel")
@run_argument
def command(run: str) -> None:
    """Let RUN save at its next step and end it; one that still waits in the queue is removed from it."""
    run_dir = find_run(run, cwd=current_folder())
    status = statuses([run_dir])[0]
    if status.state not in ALIVE:
        raise RunError(Problem(run_dir.path.name, f"is not running: {status.state}", "nothing to cancel"))
    write_json(run_dir.cancel, {"requested_at": time.time()})
    job = read_json(run_dir.job)
    if job["job_id"] is None:
        what = "whether it has a job is unknown: Slurm has not told yet"
        fix = "a run at work reads that it is cancelled, and ends; else cancel it again when `squeue --me` answers"
        raise SubmissionError(Problem(run_dir.path.name, what, fix))
    slurm_conf = (read_json(run_dir.cluster) or {}).get("slurm_conf")
    backend_named(job["backend"], slurm_conf=slurm_conf).cancel(job["job_id"], say=say)
    name = run_dir.path.name
    click.echo(f"{name}: asked to save and end; go on later with: orchestrate resume {name}", err=True)
