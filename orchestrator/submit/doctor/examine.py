"""All checks at the same time, each with a time limit: whatever hangs, there is an answer in well under ten seconds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.cluster import LOCAL
from orchestrator.errors import OrchestratorError
from orchestrator.profile import read_profile
from orchestrator.recipe.read import read_recipe
from orchestrator.submit.doctor import folder, gpus, machine, slurm
from orchestrator.submit.doctor.finding import Check, Finding, Patient
from orchestrator.submit.tracker_health import tracker_findings

TIMEOUT_S = 7.0
_LATE = "something it asks hangs: a file system, a name server, a daemon; the other lines may say which"
_BUG = "please report this line: it is a bug of the doctor"
CHECKS: Mapping[str, Check] = {
    "python": machine.python_finding,
    "packages": machine.package_findings,
    "installation": machine.install_finding,
    "torchrun": machine.torchrun_finding,
    "gpus": gpus.gpu_findings,
    "slurm": slurm.slurm_findings,
    "run directory": folder.folder_findings,
    "asset cache": folder.cache_finding,
    "mlflow": tracker_findings,
    "proxies": machine.proxy_finding,
    "variables": machine.variable_findings,
    "/dev/shm": machine.shared_memory_finding,
    "open files": machine.open_files_finding,
}
"""Each check by the name it has when it does not answer, in the order of the page."""


def patient_at(cwd: Path, *, recipe: Path | None, profile: Path | None) -> Patient:
    """What to look at. Raises RecipeError or ClusterError for a file that cannot be read."""
    cluster = LOCAL if profile is None else read_profile(profile)
    read = None if recipe is None else read_recipe(recipe)
    uri = (read and read.recipe.tracking.uri) or f"sqlite:///{cwd / 'mlflow.db'}"
    return Patient(cluster, cwd, uri, {**os.environ, **(read.environment if read else {})})


def examine(
    patient: Patient, checks: Mapping[str, Check] = CHECKS, *, timeout_s: float = TIMEOUT_S
) -> tuple[Finding, ...]:
    """What every check has to say; one that does not answer in `timeout_s` is unknown, and left behind."""
    answers: dict[str, tuple[Finding, ...]] = {}

    def run(name: str, check: Check) -> None:
        answers[name] = _answer(name, check, patient)

    threads = {name: threading.Thread(target=run, args=(name, check), daemon=True) for name, check in checks.items()}
    for thread in threads.values():
        thread.start()
    stop_at = time.monotonic() + timeout_s
    for thread in threads.values():
        thread.join(max(0.0, stop_at - time.monotonic()))
    late = f"no answer within {timeout_s:g} s"
    given = dict(answers)
    return tuple(
        finding
        for name in checks
        for finding in given.get(name) or ([] if name in given else [Finding(name, "unknown", late, _LATE)])
    )


def _answer(name: str, check: Check, patient: Patient) -> tuple[Finding, ...]:
    try:
        return tuple(check(patient))
    except OrchestratorError as error:
        what = error.problems[0].what
        return (Finding(name, "unknown", what, _LATE if what.startswith("no answer") else _BUG),)
    except Exception as error:  # a check that fails must not take the others with it
        told = next(iter(str(error).splitlines()), "")
        return (Finding(name, "unknown", f"the check itself failed: {type(error).__name__}: {told}", _BUG),)
