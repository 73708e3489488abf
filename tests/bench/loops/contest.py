"""Training loops in turns on one machine: each runs some steps alone while the others wait at their gates."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.worlds import ROOT, add_attempt, make_run

CODE = Path(__file__).parent / "code"
BARE = "a loop by hand"
OURS = "orchestrate"
RIVALS = {
    "Lightning Fabric": "fabric.py",
    "Accelerate": "accelerated.py",
    "Lightning Trainer": "lightning_trainer.py",
    "Transformers Trainer": "hf_trainer.py",
}
_WARM_UP_TURNS = 2


@dataclass(frozen=True)
class Work:
    """What is trained: the step's length follows from width and batch (per rank)."""

    width: int
    batch: int
    world_size: int
    steps_per_turn: int


@dataclass(frozen=True)
class Loop:
    """The ranks of one loop, each waiting at its gate between two turns."""

    ranks: Sequence[subprocess.Popen[str]]

    def turn(self) -> float:
        """Seconds that the slowest rank took for a turn."""
        for rank in self.ranks:
            assert rank.stdin is not None
            rank.stdin.write("\n")
            rank.stdin.flush()
        return self.wait()

    def wait(self) -> float:
        """Until every rank is at its gate."""
        return max(map(_seconds, self.ranks))


def _seconds(rank: subprocess.Popen[str]) -> float:
    assert rank.stdout is not None
    for line in rank.stdout:
        if line.startswith("turn "):
            return float(line.split()[1])
    raise AssertionError(f"{rank.args} ended with {rank.wait()}")


@contextmanager
def loop(name: str, work: Work, folder: Path) -> Iterator[Loop]:
    """Start the ranks of a loop; they are killed at the end of the block."""
    port, ranks = free_port(), list[subprocess.Popen[str]]()
    command = _ours(work, folder) if name == OURS else _by_hand(name, work)
    try:
        for rank in range(work.world_size):
            ranks.append(_start(command, work, rank, port, folder / f"{name.replace(' ', '-')}-{rank}.log"))
        yield Loop(ranks)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()


def _by_hand(name: str, work: Work) -> list[str]:
    script = RIVALS.get(name, "bare.py")
    return [sys.executable, str(CODE / script), str(work.width), str(work.batch)]


def _ours(work: Work, folder: Path) -> list[str]:
    """A worker on the run directory of a recipe, as the supervisor starts it; nothing forwards its journal."""
    recipe = {
        "name": "contest",
        "seed": 7,
        "model": {"target": "work:network", "args": {"width": work.width}},
        "loss": {"target": "work:sum_loss"},
        "datasets": [{"name": "points", "target": "work:Points", "num_samples": 8192}],
        "batch": {"effective": work.batch * work.world_size},
        "optimizer": {"name": "adamw", "lr": 0.001},
        "duration": {"steps": 10**7},
        "loader": {"workers": 0},
    }
    shutil.rmtree(folder / "run", ignore_errors=True)
    run = make_run(folder / "run", recipe, CODE)
    attempt = add_attempt(run, work.world_size)
    return [sys.executable, "-m", "orchestrator.worker", str(run.path), str(attempt.number)]


def _start(command: Sequence[str], work: Work, rank: int, port: int, log: Path) -> subprocess.Popen[str]:
    variables = {
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
        **{name: str(work.world_size) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "contest",
        "OMP_NUM_THREADS": "1",
        "STEPS_PER_TURN": str(work.steps_per_turn),
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("w") as errors:
        return subprocess.Popen(
            command,
            env={**os.environ, **variables},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def contest(work: Work, names: Sequence[str], *, turns: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of a step, by loop and turn; turn k of every loop was taken at about the same time."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        loops = {name: stack.enter_context(loop(name, work, folder)) for name in names}
        for each in loops.values():
            each.wait()
        for _ in range(_WARM_UP_TURNS):
            for each in loops.values():
                each.turn()
        steps = work.steps_per_turn - 1
        measured: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(turns):
            for name, each in loops.items():
                measured[name].append(each.turn() / steps)
    return measured


def speed_beside(measured: dict[str, list[float]], name: str, other: str) -> float:
    """How fast `name` is, as a multiple of `other`: the median over turns of the ratio of their steps' times."""
    pairs = zip(measured[name], measured[other], strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)
