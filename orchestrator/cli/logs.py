"""`orchestrate logs`: the output of a rank, now or as it grows; no terminal has to stay open for it."""

from __future__ import annotations

import sys

import click

from orchestrator.cli.options import current_folder, run_argument
from orchestrator.errors import Problem, RunError
from orchestrator.known_runs import find_run
from orchestrator.run_dir import RunDir
from orchestrator.submit.output import LogFollower, log_files, ranks_with_output
from orchestrator.submit.wait import watch


@click.command("logs")
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Which rank.")
@click.option("--job", is_flag=True, help="The driver's own output instead of a rank's.")
def command(run: str, follow: bool, rank: int, job: bool) -> None:
    """Print the output of a rank of RUN, all attempts one after the other."""
    run_dir = find_run(run, cwd=current_folder())
    which = None if job else rank
    follower = LogFollower(run_dir, rank=which)
    if follow:
        for _ in watch(run_dir):
            _print_new(follower)
    elif not log_files(run_dir, rank=which):
        raise RunError(_no_output(run_dir, which))
    _print_new(follower)


def _print_new(follower: LogFollower) -> None:
    for chunk in follower.chunks():
        sys.stdout.write(chunk)
    sys.stdout.flush()


def _no_output(run_dir: RunDir, rank: int | None) -> Problem:
    name = run_dir.path.name
    if rank is None:
        return Problem(name, "the driver has written nothing yet", f"see `orchestrate status {name}`")
    ranks = ranks_with_output(run_dir)
    known = f"ranks 0 to {ranks[-1]} have" if ranks else "no rank has"
    return Problem(name, f"no output of rank {rank}: {known} written any", f"see `orchestrate logs --job {name}`")
