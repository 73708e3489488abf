"""The machines a job really got, from Slurm's variables or from this machine. Pure but for what is passed in."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Literal

from orchestrator.cluster import Allocation, Cluster
from orchestrator.errors import LaunchError, Problem
from orchestrator.job.commands import ask
from orchestrator.recipe.schema import Recipe

Accelerator = Literal["cuda", "cpu"]


def scontrol_hostnames(nodelist: str) -> tuple[str, ...]:
    """The node names in a Slurm node list such as `node[1-3,7]`, as Slurm itself expands it. Raises LaunchError."""
    return tuple(ask(("scontrol", "show", "hostnames", nodelist), timeout_s=30).split())


def allocation_from_slurm(
    env: Mapping[str, str],
    recipe: Recipe,
    cluster: Cluster,
    *,
    accelerator: Accelerator,
    hostnames_of: Callable[[str], tuple[str, ...]] = scontrol_hostnames,
) -> Allocation:
    """The allocation that Slurm's variables of a batch script describe. Raises LaunchError, naming what is missing.

    The node that runs the driver comes first, because the port is probed there.
    """
    nodelist = env.get("SLURM_JOB_NODELIST")
    if not nodelist:
        raise LaunchError(Problem("SLURM_JOB_NODELIST", "not set: this is no Slurm job", "start it by sbatch job.sh"))
    here = env.get("SLURMD_NODENAME")
    names = sorted(hostnames_of(nodelist), key=lambda name: name != here)
    cpus = env.get("SLURM_CPUS_PER_TASK") or env.get("SLURM_CPUS_ON_NODE")
    return Allocation(
        num_nodes=len(names),
        gpus_per_node=_gpus_per_node(env, recipe, cluster, accelerator),
        cpus_per_node=int(cpus) if cpus else None,
        node_names=tuple(names),
        accelerator=accelerator,
    )


def _gpus_per_node(env: Mapping[str, str], recipe: Recipe, cluster: Cluster, accelerator: Accelerator) -> int:
    """What Slurm gave; the number asked for where a site's Slurm knows no GPUs, or where ranks run on CPUs."""
    if count := env.get("SLURM_GPUS_ON_NODE"):
        return int(count)
    if listed := env.get("SLURM_JOB_GPUS"):
        return len(listed.split(","))
    if accelerator == "cpu" or cluster.gpu_request == "none":
        return recipe.resources.gpus_per_node
    fix = "set gpu_request in the cluster profile to the option by which this site gives GPUs"
    raise LaunchError(Problem("SLURM_GPUS_ON_NODE", "not set: Slurm gave this job no GPUs", fix))


def allocation_local(recipe: Recipe, *, accelerator: Accelerator, host: str, usable_cpus: int) -> Allocation:
    """This machine, as often as the recipe asks for nodes: its groups of processes share the cores."""
    wanted = recipe.resources
    cpus = max(1, usable_cpus // wanted.num_nodes)
    if wanted.cpus_per_gpu is not None:
        cpus = wanted.cpus_per_gpu * wanted.gpus_per_node
    name = host.partition(".")[0]
    names = (name,) if wanted.num_nodes == 1 else tuple(f"{name}-{index}" for index in range(wanted.num_nodes))
    return Allocation(wanted.num_nodes, wanted.gpus_per_node, cpus, names, accelerator)


def without_nodes(allocation: Allocation, names: Container[str]) -> Allocation:
    """What remains of an allocation when some nodes are left out."""
    kept = tuple(name for name in allocation.node_names if name not in names)
    return replace(allocation, num_nodes=len(kept), node_names=kept)
