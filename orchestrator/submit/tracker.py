"""The forwarder, seen from the login side: a subprocess, so that MLflow's weight and outages stay out of here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping

from orchestrator.run_dir import RunDir
from orchestrator.submit.commands import wait_for

CREATE_TIMEOUT_S = 20.0
ANOTHER_FORWARDER = 3
"""The forwarder's exit code when another one is at work on the run."""


def create_mlflow_run(run_dir: RunDir, environment: Mapping[str, str]) -> bool:
    """Let the forwarder create the MLflow run; False when MLflow has not answered in CREATE_TIMEOUT_S.

    It may be making the tables of a new store then, and is left to end that: half of them would be no store. The job
    may have started meanwhile, and its own forwarder holds the pen: then that one creates the run.
    """
    deadline = time.monotonic() + CREATE_TIMEOUT_S
    env = {**os.environ, **environment}
    ended = wait_for((*_forwarder(run_dir, "--create"), "--timeout-s=15"), timeout_s=CREATE_TIMEOUT_S, env=env)
    while ended == ANOTHER_FORWARDER and not run_dir.mlflow.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    return run_dir.mlflow.exists()


def drain(run_dir: RunDir, environment: Mapping[str, str], *, timeout_s: float) -> int:
    """Replay what MLflow has not got yet, with the forwarder's own words on the terminal; its exit code."""
    argv = (*_forwarder(run_dir, "--drain"), f"--timeout-s={timeout_s:g}")
    return subprocess.run(argv, env={**os.environ, **environment}, timeout=timeout_s + 30, check=False).returncode


def mlflow_ui(uri: str) -> str:
    """The command, or the address, that shows the runs."""
    if uri.startswith(("http://", "https://")):
        return uri
    return shlex.join(("mlflow", "ui", "--backend-store-uri", uri))


def _forwarder(run_dir: RunDir, mode: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "orchestrator.tracking.forward", str(run_dir.path), mode)
