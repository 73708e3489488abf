"""The one place where the driver asks another program something and waits for the answer."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import LaunchError, Problem


def ask(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a program prints, in this environment and folder or our own.

    Raises LaunchError, in one line, when it is missing, fails or takes too long.
    """
    where = " ".join(argv)
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, env=env, cwd=cwd
        )
    except FileNotFoundError:
        fix = "start the job by sbatch, on a node of the cluster"
        raise LaunchError(Problem(where, "no such program on PATH", fix)) from None
    except subprocess.TimeoutExpired:
        raise LaunchError(Problem(where, f"timed out: no answer within {timeout_s:g} s")) from None
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LaunchError(Problem(where, words[-1]))
    return done.stdout
