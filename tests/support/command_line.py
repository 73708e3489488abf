"""Run `orchestrate` as a person would: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "data" / "recipes"
TINY = RECIPES / "tiny.yaml"


def orchestrate(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a verb in `cwd` and return its output and exit code."""
    return subprocess.run(
        (sys.executable, "-m", "orchestrator.cli", *map(str, words)),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def run_to_its_end(recipe: Path, *words: str | Path, cwd: Path) -> Path:
    """Submit a recipe on this machine and wait until it is done: its run directory."""
    done = orchestrate("submit", recipe, *words, "--wait", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["run_dir"])
