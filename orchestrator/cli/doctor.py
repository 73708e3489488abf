"""`orchestrate doctor`: what would go wrong on this machine, each with what to do, in under ten seconds."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import click

from orchestrator import __version__
from orchestrator.cli.options import cluster_option, current_folder, json_option
from orchestrator.cli.render.doctor import doctor_facts, doctor_screen
from orchestrator.cli.render.text import json_text
from orchestrator.submit.doctor.examine import examine, patient_at


@click.command("doctor")
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@cluster_option
@json_option
def command(recipe: Path | None, profile: Path | None, as_json: bool) -> int:
    """Look at Python, torchrun, Slurm, the folder of runs, MLflow and GPUs; with RECIPE, at its tracker too.

    Whatever hangs, it answers in under 10 s. Exit code 1 when something is a problem; warnings do not count. The output
    holds no secrets.
    """
    started = time.monotonic()
    findings = examine(patient_at(current_folder(), recipe=recipe, profile=profile))
    about = f"{platform.system()} {platform.release()} {platform.machine()}"
    if as_json:
        elapsed_s = time.monotonic() - started
        click.echo(json_text(doctor_facts(findings, version=__version__, platform=about, elapsed_s=elapsed_s)))
    else:
        click.echo(doctor_screen(findings, version=__version__, platform=about), nl=False)
    return 1 if any(finding.status == "problem" for finding in findings) else 0
