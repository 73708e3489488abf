"""Worlds of real ranks on loopback, started from run directories as the driver would write them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster import LOCAL, Allocation
from orchestrator.documents import dump_yaml
from orchestrator.files import make_private_dir, read_json, write_atomically, write_json
from orchestrator.plan.plan import make_plan, plan_from_json, plan_to_json
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.tracking.journal import read_journal_dir
from tests.support.nursery import ForkedRank, nursery
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
Rank = subprocess.Popen[bytes] | ForkedRank


def make_run(folder: Path, recipe: Mapping[str, Any], code: Path) -> RunDir:
    """A run directory in `folder` for `recipe`, with the modules of folder `code` as its snapshot."""
    run = RunDir(make_private_dir(folder))
    write_atomically(run.recipe, dump_yaml(recipe))
    write_json(run.run, {"schema": 1, "uid": "0" * 32, "name": recipe["name"], "fingerprint": "f" * 64})
    shutil.copytree(code, run.snapshot_recipe, ignore=shutil.ignore_patterns("__pycache__"))
    return run


def add_attempt(run: RunDir, world_size: int, num_nodes: int = 1, **told: Any) -> AttemptDir:
    """The next attempt, planned for `world_size` ranks on some nodes, with the memory of the submitted plan if any; its
    launch.json has what is `told` too."""
    last = run.last_attempt()
    attempt = run.attempt(last.number + 1 if last else 0)
    make_private_dir(attempt.logs)
    recipe = recipe_from_stored(run.recipe.read_text(), str(run.recipe))
    submitted = read_json(run.plan)
    memory = plan_from_json(submitted).memory if submitted else None
    allocation = Allocation(num_nodes=num_nodes, gpus_per_node=world_size // num_nodes)
    plan = make_plan(recipe, LOCAL, allocation, memory=memory)
    write_json(attempt.plan, plan_to_json(plan))
    nodes = [{"name": f"node{index + 1}", "node_rank": index, "argv": []} for index in range(num_nodes)]
    write_json(attempt.launch, {"attempt": attempt.number, "accelerator": "cpu", "nodes": nodes, **told})
    return attempt


@dataclass
class RunningWorld:
    """The ranks of one attempt, each a process of its own."""

    run: RunDir
    attempt: AttemptDir
    ranks: list[Rank]

    def wait(self, timeout_s: float = 600) -> list[int]:
        """The exit codes, by rank."""
        return [rank.wait(timeout_s) for rank in self.ranks]

    def wait_for_step(self, step: int, timeout_s: float = 180) -> None:
        """Until the journal of this attempt shows that `step` was made."""
        give_up_at = time.monotonic() + timeout_s
        while max(metrics_of(self.run, "train/loss", attempt=self.attempt.number), default=0) < step:
            assert time.monotonic() < give_up_at, self.log()
            assert any(rank.poll() is None for rank in self.ranks), self.log()
            time.sleep(0.05)

    def signal(self, number: signal.Signals, *, rank: int) -> None:
        self.ranks[rank].send_signal(number)

    def log(self) -> str:
        """What all ranks have printed."""
        return "".join(path.read_text() for path in sorted(self.attempt.logs.iterdir()))


@contextmanager
def world_of(
    run: RunDir,
    world_size: int,
    *,
    num_nodes: int = 1,
    is_anew: bool = False,
    told: Mapping[str, Any] = {},
    of_rank: Mapping[int, Mapping[str, str]] = {},
    **env: str,
) -> Iterator[RunningWorld]:
    """Start the next attempt of `run` with `world_size` ranks, which are `told` more in launch.json; what still runs at
    the end of the block is killed.

    They are shared by `num_nodes` pretend nodes of this machine. `of_rank` has more variables for some of them. With
    `is_anew` each is a program that loads torch itself: where that, its memory, its variables of torch or a library
    that is loaded before it matter.
    """
    attempt = add_attempt(run, world_size, num_nodes, **told)
    port = free_port()
    world = RunningWorld(run, attempt, [])
    try:
        for rank in range(world_size):
            variables = {**node_of(rank, world_size // num_nodes), **env, **of_rank.get(rank, {})}
            world.ranks.append(start_rank(run, attempt, rank, world_size, port, variables, is_anew=is_anew))
        yield world
    finally:
        for process in world.ranks:
            process.kill()
            process.wait()


def node_of(rank: int, share: int) -> dict[str, str]:
    """What torchrun tells a rank of its node, where each has `share` ranks."""
    return {"GROUP_RANK": str(rank // share), "LOCAL_RANK": str(rank % share), "LOCAL_WORLD_SIZE": str(share)}


def start_rank(
    run: RunDir,
    attempt: AttemptDir,
    rank: int,
    world_size: int,
    port: int,
    env: Mapping[str, str],
    *,
    is_anew: bool,
) -> Rank:
    """One rank in a process group of its own, its output in its log: the worker, or the recipe's own command."""
    recipe = recipe_from_stored(run.recipe.read_text(), str(run.recipe))
    variables = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "ORCHESTRATE_ATTEMPT_DIR": str(attempt.path),
        "PYTHONPATH": str(ROOT),
        **env,
    }
    if not recipe.command and not is_anew:
        return nursery().start(run.path, attempt.number, variables, attempt.rank_log(rank))
    if recipe.command:
        command, cwd = [sys.executable, *recipe.command], run.snapshot_recipe
    else:
        command, cwd = [sys.executable, "-m", "orchestrator.worker", str(run.path), str(attempt.number)], ROOT
    with attempt.rank_log(rank).open("ab") as log:
        return subprocess.Popen(
            command,
            env=variables,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def run_world(run: RunDir, world_size: int, *, is_anew: bool = False, **env: str) -> AttemptDir:
    """Run the next attempt to its end; every rank must end with status 0."""
    with world_of(run, world_size, is_anew=is_anew, **env) as world:
        codes = world.wait()
        assert codes == [0] * world_size, world.log()
        return world.attempt


def metrics_of(run: RunDir, key: str, *, attempt: int | None = None) -> dict[int, float]:
    """Values of a metric by step; of several, the first one, as MLflow keeps it."""
    values: dict[int, float] = {}
    for file, record in read_journal_dir(run.path):
        if record["kind"] == "metrics" and key in record["values"] and attempt in (None, file.attempt):
            values.setdefault(record["step"], float(record["values"][key]))
    return values


def sample_ids_of(run: RunDir) -> dict[int, list[int]]:
    """The sample ids of every step, ranks and micro-batches in order; of the last attempt that made it."""
    found: dict[int, dict[int, list[list[int]]]] = defaultdict(dict)
    for file, record in read_journal_dir(run.path):
        if record["kind"] == "window":
            if file.rank == 0:
                found[record["step"]] = {}
            found[record["step"]][file.rank] = record["micro_batches"]
    return {step: [i for rank in sorted(parts) for ids in parts[rank] for i in ids] for step, parts in found.items()}


def events_of(run: RunDir, name: str) -> list[dict[str, Any]]:
    """The details of every event of that name."""
    return [r["detail"] for _, r in read_journal_dir(run.path) if r["kind"] == "event" and r["name"] == name]


def failure_of(attempt: AttemptDir, rank: int = 0) -> dict[str, Any]:
    """What a failing rank has left."""
    failure: dict[str, Any] = read_json(attempt.error(rank))
    return failure
