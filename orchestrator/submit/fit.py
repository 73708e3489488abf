"""How much memory a recipe's training step takes, asked of a simulation in a process of its own, and remembered.

The process may crash, hang or meet code that fake tensors cannot follow: then arithmetic with a wider margin stands in
for it, and the report says why. Simulated points do not depend on the GPU, so another GPU asks for few new ones.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.cluster import Cluster
from orchestrator.errors import Problem, RecipeError
from orchestrator.files import read_json, write_json
from orchestrator.machine import detect_accelerator
from orchestrator.plan.budget import budget_of
from orchestrator.plan.effective import effective_samples
from orchestrator.plan.fit import (
    FitReport,
    FitRow,
    ModelSizes,
    OneIsTooFew,
    arithmetic_curve,
    fit_rows,
    state_copies_of,
)
from orchestrator.plan.memory import MemoryPlan, Method
from orchestrator.plan.plan import partition_of
from orchestrator.recipe.data import Target
from orchestrator.recipe.read import ReadRecipe
from orchestrator.submit.commands import Say, watch_command
from orchestrator.submit.fit_cache import Found, cache_file, remember, remembered
from orchestrator.units import parse_bytes

TIMEOUT_S = 900.0
TALK_EVERY_S = 30.0
_TALK = "fit: "
_NUMBER = "write batch.micro as a number"

Accelerator = Literal["cuda", "cpu"]


def memory_for(read: ReadRecipe, cluster: Cluster, *, code_digest: str, say: Say) -> MemoryPlan:
    """What fits where the recipe runs: for `batch.micro: auto`. Raises RecipeError where that cannot be found out."""
    recompute = read.recipe.activation_checkpointing
    report = fit(read, cluster, code_digest=code_digest, recompute=(recompute,), say=say)
    return report.memory_plan(recompute=recompute)


def fit(
    read: ReadRecipe,
    cluster: Cluster,
    *,
    code_digest: str,
    recompute: tuple[bool, ...],
    say: Say,
    gpu_bytes: int | None = None,
    fresh: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> FitReport:
    """The largest micro-batches of a recipe, with activations recomputed or not.

    `gpu_bytes` stands for a CUDA GPU of that size, whatever the profile says; `fresh` forgets what was remembered.
    A simulation is ended after `timeout_s`.
    Raises RecipeError for a command, for an unknown memory, and for user code that cannot be loaded.
    """
    if read.recipe.command:
        what = "the memory of a command cannot be predicted: what it trains is its own affair"
        read.refuse([Problem("batch.micro" if read.recipe.batch.micro else "command", what, _NUMBER)])
    accelerator: Accelerator = "cuda"
    rank_bytes = gpu_bytes
    if rank_bytes is None:
        accelerator, rank_bytes = memory_of_rank(read, cluster)
    case = _Case(read, accelerator, rank_bytes, recompute)
    cache = cache_file(read, accelerator, code_digest=code_digest, environment=case.environment)
    found = Found() if fresh else remembered(cache, case.environment)
    rows, cpu_s = case.rows_from(found), 0.0
    if rows is None and not found.failed_for_good:
        cpu_s = case.simulate(found, say, timeout_s=timeout_s)
        if found.lasting:
            remember(found, cache, say)
        rows = case.rows_from(found)
    return case.report(found, rows, cpu_s)


def memory_of_rank(read: ReadRecipe, cluster: Cluster) -> tuple[Accelerator, int]:
    """What the recipe's ranks compute on, and the bytes each of them has. Raises RecipeError where nobody says."""
    recipe = read.recipe
    accelerator = detect_accelerator(cluster.accelerator)
    partition_name = partition_of(recipe, cluster) or ""
    partition = cluster.partitions.get(partition_name)
    nodes = None if partition is None else partition.nodes
    if accelerator == "cpu":
        written = recipe.resources.memory or (nodes and nodes.memory)
        node_bytes = parse_bytes(written) if written else _machine_bytes()
        return accelerator, node_bytes // recipe.resources.gpus_per_node
    if nodes is None or nodes.gpu_memory is None:
        what = f"the memory of a GPU is not known: the profile {cluster.name!r} does not say it"
        key = f"partitions.{partition_name}.nodes" if nodes else "a partition's nodes"
        fix = f'write gpu_memory: "80G" below {key} in the profile, or {_NUMBER}; `orchestrate fit` also takes --gpu'
        raise RecipeError(read.document.placed([Problem("batch.micro", what, fix)]))
    return accelerator, parse_bytes(nodes.gpu_memory)


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class _Case:
    """One question: this recipe, on ranks of this size."""

    read: ReadRecipe
    accelerator: Accelerator
    rank_bytes: int
    recompute: tuple[bool, ...]

    @property
    def most(self) -> int:
        """Samples beyond which no rank ever needs a larger micro-batch: a world of one takes the whole batch."""
        batch = self.read.recipe.batch
        return max(1, batch.per_gpu or effective_samples(batch) or 1)

    @property
    def budget_bytes(self) -> int:
        return budget_of(self.rank_bytes, accelerator=self.accelerator, method="simulated").tensor_bytes

    def rows_from(self, found: Found) -> tuple[FitRow, ...] | None:
        """The rows that the points found so far give; None where one is missing that the search would look at."""
        rows: list[FitRow] = []
        try:
            for recompute in self.recompute:
                if recompute and "without_recompute" in found.facts:
                    continue
                rows += fit_rows(
                    found.peak_of(recompute),
                    recompute=recompute,
                    step_bytes=found.facts["step_bytes"],
                    gradient_bytes=found.facts["sizes"]["trained_bytes"],
                    budget_bytes=self.budget_bytes,
                    most=self.most,
                )
        except (KeyError, OneIsTooFew):
            return None
        return tuple(rows)

    def simulate(self, found: Found, say: Say, *, timeout_s: float) -> float:
        """Ask the simulation for what is missing, and add it to `found`; the CPU seconds that took.

        Raises RecipeError for mistakes in the user's files, and where the model could not even be made.
        """
        tail: list[str] = []

        def on_line(line: str) -> None:
            if line.startswith(_TALK):
                say(line)
            elif line.strip():
                tail[:] = [line.strip()]

        with tempfile.TemporaryDirectory(prefix="orchestrate-fit-") as folder:
            request, answer_path = Path(folder, "request.json"), Path(folder, "answer.json")
            write_json(request, self._request(found))
            argv = (sys.executable, "-m", "orchestrator.worker.fit", str(request), str(answer_path))
            with _talking(say, timeout_s=timeout_s):
                code = watch_command(argv, timeout_s=timeout_s, env=self.environment, on_line=on_line)
            answer = read_json(answer_path) or {}
        self.read.refuse(self._placed(told) for told in answer.pop("problems", ()))
        found.facts.pop("failed", None)
        found.add(answer)
        if code != 0:
            why = f"it took longer than {timeout_s:g} s" if code is None else f"it ended with {_exit_words(code)}"
            found.facts["failed"] = f"{why}: {tail[0]}" if tail else why
            found.lasting = False
        if "sizes" not in found.facts:
            what = f"the model cannot be made on this machine: {found.facts.get('failed')}"
            self.read.refuse([Problem("model.target", what, _NUMBER)])
        return float(answer.get("cpu_s", 0.0))

    def _placed(self, told: dict[str, str]) -> Problem:
        """A problem of the user's code, at the key that names this code."""
        recipe = self.read.recipe
        named: dict[str, Target | None] = {f"datasets.{i}.target": one for i, one in enumerate(recipe.datasets)}
        named |= {"model.target": recipe.model, "loss.target": recipe.loss}
        where = next((key for key, target in named.items() if target and target.target == told["where"]), told["where"])
        return Problem(where, told["what"], told["fix"])

    def _request(self, found: Found) -> dict[str, Any]:
        return {
            "parent": os.getpid(),
            "recipe": self.read.stored,
            "source": "recipe.yaml",
            "folder": str(self.read.folder.absolute()),
            "accelerator": self.accelerator,
            "budget_bytes": self.budget_bytes,
            "most": self.most,
            "recompute": list(self.recompute),
            "known": found.as_json()["points"],
        }

    @property
    def environment(self) -> dict[str, str]:
        """The job's variables; one thread, and no GPU of the login node."""
        return {**os.environ, **self.read.environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def report(self, found: Found, rows: tuple[FitRow, ...] | None, cpu_s: float) -> FitReport:
        """What was found, by the simulation or, where it failed, by arithmetic."""
        method: Method = "arithmetic" if rows is None else "simulated"
        budget = budget_of(self.rank_bytes, accelerator=self.accelerator, method=method)
        why = "" if rows else str(found.facts.get("failed", "the search found no end"))
        return FitReport(
            accelerator=self.accelerator,
            rows=self._arithmetic_rows(found, budget.tensor_bytes) if rows is None else rows,
            budget=budget,
            method=method,
            why=why,
            without_recompute=str(found.facts.get("without_recompute", "")),
            alone=str(found.facts.get("alone", "")),
            sample=str(found.facts.get("sample", "")),
            cpu_s=cpu_s,
        )

    def _arithmetic_rows(self, found: Found, budget_bytes: int) -> tuple[FitRow, ...]:
        """Rows of the recipe's own mode: what recomputing would save is beyond first order.

        What a simulation has found not to fit, arithmetic does not allow.
        """
        optimizer = self.read.recipe.optimizer
        sizes = ModelSizes(**found.facts["sizes"])
        copies = state_copies_of(optimizer.name, momentum=optimizer.momentum)
        recompute = self.read.recipe.activation_checkpointing
        rows = []
        for accumulating in (False, True):
            curve = arithmetic_curve(sizes, state_copies=copies, accumulating=accumulating)
            fails = found.fails_at(self.budget_bytes, recompute=recompute, accumulating=accumulating)
            largest = curve.largest_within(budget_bytes, most=self.most)
            largest = largest if fails is None else min(largest, fails - 1)
            rows.append(FitRow(recompute, accumulating, curve, largest, capped=largest == self.most))
        return tuple(rows)


@contextlib.contextmanager
def _talking(say: Say, *, timeout_s: float) -> Iterator[None]:
    """A line now and then, for as long as the simulation takes: one that hangs says nothing itself."""
    began, is_over = time.monotonic(), threading.Event()

    def talk() -> None:
        while not is_over.wait(min(TALK_EVERY_S, timeout_s / 3)):
            say(f"{_TALK}at it for {time.monotonic() - began:.0f} s, at most {timeout_s:g} s")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _exit_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
