"""Run directories as `submit` writes them, for recipes that are a small script; and drivers on them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster import LOCAL, Cluster
from orchestrator.documents import dump_yaml
from orchestrator.files import make_private_dir, read_json, write_atomically, write_json
from orchestrator.plan.plan import make_plan, plan_to_json, requested_allocation
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import AttemptDir, RunDir

ROOT = Path(__file__).parents[2]
BATCH = {"effective": 8}

FORWARDER = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[1])
print("forwarder up", flush=True)
while not list(run.glob("attempts/*/verdict.json")):
    time.sleep(0.05)
"""
"""A program in the forwarder's place: it ends well once there is a verdict."""


def make_run(
    folder: Path,
    script: str,
    *,
    num_nodes: int = 1,
    gpus_per_node: int = 1,
    cluster: Cluster = LOCAL,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    batch: Mapping[str, Any] = BATCH,
    num_samples: int = 0,
) -> RunDir:
    """A submitted run whose recipe is the command `script.py`, with the text `script`; beside a dataset, if it has
    `num_samples`."""
    run = RunDir(make_private_dir(folder))
    for room in (run.snapshot_recipe, run.journal, run.forward, run.job_logs):
        make_private_dir(room)
    (run.snapshot_recipe / "script.py").write_text(script)
    recipe = recipe_of({"num_nodes": num_nodes, "gpus_per_node": gpus_per_node}, arguments, batch, num_samples)
    planned = recipe_of({}, batch=batch, num_samples=num_samples)
    plan = make_plan(planned, cluster, requested_allocation(planned, cluster, accelerator="cpu"))
    write_atomically(run.recipe, dump_yaml(recipe.model_dump(mode="json")))
    write_json(run.environment, dict(environment or {}))
    write_json(run.cluster, cluster.model_dump(mode="json"))
    write_json(run.plan, plan_to_json(plan))
    return run


def recipe_of(
    resources: Mapping[str, Any],
    arguments: tuple[str, ...] = (),
    batch: Mapping[str, Any] = BATCH,
    num_samples: int = 0,
) -> Recipe:
    """A recipe that is a command; one that opens a session, if it has `num_samples`."""
    datasets = [{"name": "numbers", "target": "script:numbers", "num_samples": num_samples}] if num_samples else []
    return Recipe.model_validate(
        {
            "name": "tiny",
            "command": ["script.py", *arguments],
            "datasets": datasets,
            "batch": dict(batch),
            "optimizer": {"name": "sgd", "lr": 0.1},
            "duration": {"steps": 3},
            "resources": dict(resources),
        }
    )


@dataclass
class Driver:
    """A driver at work on a run, as a process."""

    run: RunDir
    process: subprocess.Popen[str]

    @property
    def attempt(self) -> AttemptDir:
        return self.run.attempt(0)

    def end(self, timeout_s: float = 300) -> tuple[int, str]:
        """Its exit code, and what it printed."""
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    def verdict(self) -> dict[str, Any]:
        found = read_json(self.attempt.verdict)
        assert isinstance(found, dict)
        return found


@contextlib.contextmanager
def driver_on(run: RunDir, *, env: Mapping[str, str] | None = None) -> Iterator[Driver]:
    """Start a driver; whatever still runs at the end of the block is killed with it."""
    command = [sys.executable, "-m", "tests.job.drive", str(run.path), sys.executable, "-c", FORWARDER, str(run.path)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Driver(run, process)
    finally:
        process.kill()
        process.communicate()
