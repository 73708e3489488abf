"""What an attempt is given: the run directory's files, read once and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import Problem, RunError
from orchestrator.files import read_json
from orchestrator.plan.mixture import SampleOrder
from orchestrator.plan.plan import Plan, plan_from_json
from orchestrator.plan.shares import plan_mixture
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.worker.data.order_files import StoredPermutations
from orchestrator.worker.deadline import Deadline
from orchestrator.worker.world import World


@dataclass(frozen=True)
class Inputs:
    """One rank's view of its attempt."""

    run: RunDir
    attempt: AttemptDir
    recipe: Recipe
    plan: Plan
    fingerprint: str
    node: str
    nodes: tuple[str, ...]
    """The names of all nodes, in the order of their ranks."""
    accelerator: Literal["cuda", "cpu"]
    new_order: bool
    """Whether the checkpoint may have been saved in another order of samples."""
    ends_at: float | None = None
    """When the scheduler will end the job, in seconds since the epoch; None where it will not, or nobody knows."""
    patience_s: float = 0.0
    """What the site leaves for a save after it has asked for the end."""

    @cached_property
    def order(self) -> SampleOrder:
        """The order of samples; the permutations of large datasets lie in the run directory."""
        mixture = self.plan.mixture or plan_mixture(self.recipe.datasets, self.recipe.mixture)
        epoch = self.plan.schedule.samples_per_epoch or mixture.samples_per_epoch(self.recipe.mixture)
        order = SampleOrder(self.recipe.seed, mixture, epoch)
        return replace(order, permute=StoredPermutations(self.run, order.digest()))

    def deadline(self) -> Deadline:
        """When the ranks stop by themselves."""
        return Deadline(self.ends_at, self.patience_s)

    def node_of_each_rank(self) -> list[str]:
        """The nodes of the ranks, by rank: torchrun counts them node by node."""
        per_node = self.plan.topology.gpus_per_node
        return [self.nodes[rank // per_node] for rank in range(self.plan.topology.world_size)]

    def require_newest(self) -> None:
        """Raise RunError when a later attempt of the run has begun: nothing of this one may be saved then."""
        later = self.run.attempt(self.attempt.number + 1).path
        if later.exists():
            what = f"attempt {later.name} of this run has begun"
            raise RunError(Problem(str(self.attempt.path), what, "this one ends itself, and saves nothing"))


def read_inputs(run: RunDir, attempt: AttemptDir, world: World) -> Inputs:
    """The attempt's inputs. Raises RunError when a file is missing or the world is not the planned one."""
    launch = _required(attempt.launch)
    plan = plan_from_json(_required(attempt.plan))
    if plan.topology.world_size != world.world_size:
        what = f"planned for {plan.topology.world_size} ranks, and started with {world.world_size}"
        raise RunError(Problem(str(attempt.plan), what, "start the ranks that launch.json says"))
    nodes = tuple(node["name"] for node in sorted(launch["nodes"], key=lambda node: node["node_rank"]))
    return Inputs(
        run=run,
        attempt=attempt,
        recipe=recipe_from_stored(_text(run.recipe), str(run.recipe)),
        plan=plan,
        fingerprint=_required(run.run)["fingerprint"],
        node=nodes[world.node_rank],
        nodes=nodes,
        accelerator=launch["accelerator"],
        new_order=(read_json(run.resume) or {}).get("new_order", False),
        ends_at=launch.get("ends_at"),
        patience_s=launch.get("shutdown_timeout_s", 0.0),
    )


def _required(path: Path) -> Any:
    value = read_json(path)
    if value is None:
        raise RunError(Problem(str(path), "there is no such file", "start the attempt through its driver"))
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise RunError(Problem(str(path), "there is no such file", "submit the recipe again")) from None
