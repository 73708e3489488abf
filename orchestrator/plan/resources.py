"""Whether a site can give what a recipe asks for. Pure; every problem at once, its `where` a dotted key."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.cluster import Cluster, NodeType, Partition
from orchestrator.errors import Problem, did_you_mean
from orchestrator.recipe.schema import Recipe, Resources
from orchestrator.survey import Check, readable
from orchestrator.units import parse_bytes, parse_walltime


def check_resources(resources: Resources, cluster: Cluster) -> tuple[Problem, ...]:
    """What `cluster` cannot give to whole `resources`."""
    return tuple(problem for rule in _RULES for problem in rule(resources, cluster))


def resource_checks(cluster: Cluster) -> tuple[Check[Recipe], ...]:
    """One check a rule: what `cluster` cannot give. A profile without partitions (this machine) refuses nothing."""

    def check_of(rule: Rule) -> Check[Recipe]:
        return lambda recipe: rule(recipe.resources, cluster)

    return tuple(map(check_of, _RULES))


def partition_name(resources: Resources, cluster: Cluster) -> str | None:
    """The partition that would be asked for: the recipe's, else the profile's default one."""
    return resources.partition or cluster.default_partition


def cpus_per_node(resources: Resources, cluster: Cluster) -> int | None:
    """CPU cores to ask for on each node: by `cpus_per_gpu`, else the GPUs' share of the partition's node."""
    if resources.cpus_per_gpu is not None:
        return resources.cpus_per_gpu * resources.gpus_per_node
    partition = cluster.partitions.get(partition_name(resources, cluster) or "")
    if partition is None:
        return None
    gpus = resources.gpus_per_node
    return max(1, partition.nodes.cpus * gpus // max(partition.nodes.gpus, gpus))


def _no_partition(resources: Resources, cluster: Cluster) -> Iterator[Problem]:
    name = partition_name(resources, cluster)
    if name is not None and "," in name and cluster.scheduler == "slurm":
        what = f"{name!r} is a list, and a plan is for one"
        yield Problem("resources.partition", what, "name one; `submit --soonest` takes the one that starts first")
    elif name is None and cluster.partitions:
        known = ", ".join(cluster.partitions)
        what = f"the profile {cluster.name!r} has no default partition, and the recipe names none"
        yield Problem("resources.partition", what, f"choose one of: {known}")
    elif name is not None and cluster.partitions and name not in cluster.partitions:
        what = f"the profile {cluster.name!r} has no partition {name!r}"
        yield Problem("resources.partition", what, did_you_mean(name, cluster.partitions))


def _partition(resources: Resources, cluster: Cluster) -> tuple[str, Partition] | None:
    """The partition that would be used, by its name; None where there is none (another rule says so)."""
    name = partition_name(resources, cluster) or ""
    return (name, cluster.partitions[name]) if name in cluster.partitions else None


def _too_long(resources: Resources, cluster: Cluster) -> Iterator[Problem]:
    chosen = _partition(resources, cluster)
    if chosen is None:
        return
    name, partition = chosen
    wanted, most = resources.walltime, partition.max_walltime
    if wanted is not None and most is not None and parse_walltime(wanted) > parse_walltime(most):
        what = f"{wanted} is longer than partition {name!r} allows"
        yield Problem("resources.walltime", what, f'write "{most}" or less')


def _too_many_nodes(resources: Resources, cluster: Cluster) -> Iterator[Problem]:
    chosen = _partition(resources, cluster)
    if chosen is not None and resources.num_nodes > chosen[1].nodes.num_nodes:
        most = chosen[1].nodes.num_nodes
        what = f"{resources.num_nodes} nodes are more than the {most} in partition {chosen[0]!r}"
        yield Problem("resources.num_nodes", what, f"write {most} or less")


def _too_many_ranks(resources: Resources, cluster: Cluster) -> Iterator[Problem]:
    chosen = _partition(resources, cluster)
    if chosen is None:
        return
    where, nodes = f"in partition {chosen[0]!r}", chosen[1].nodes
    ranks_on_cpus = nodes.gpus == 0 and cluster.accelerator != "cuda"
    if resources.gpus_per_node > nodes.gpus and not ranks_on_cpus:
        what = f"{resources.gpus_per_node} GPUs per node are more than the {nodes.gpus} {where}"
        yield Problem("resources.gpus_per_node", what, _fewer_gpus(resources, nodes))
    else:
        yield from _too_many_cpus(resources, where, nodes)


def _fewer_gpus(resources: Resources, nodes: NodeType) -> str:
    """What to write instead of too many GPUs per node; more nodes only where there are as many."""
    if not nodes.gpus:
        return "choose a partition with GPUs"
    most, ranks = nodes.num_nodes * nodes.gpus, resources.gpus_per_node
    if readable(resources, "num_nodes"):
        ranks *= resources.num_nodes
    return f"write {nodes.gpus} or less{', and more num_nodes' if ranks <= most else f': there are {most} GPUs in all'}"


def _wrong_gpu_type(resources: Resources, cluster: Cluster) -> Iterator[Problem]:
    chosen = _partition(resources, cluster)
    if chosen is None or resources.gpu_type is None:
        return
    if cluster.gpu_request == "none":
        what = f"the profile {cluster.name!r} asks for no GPUs, so it cannot ask for a type"
        yield Problem("resources.gpu_type", what, "write resources.constraint, if the nodes have such a feature")
        return
    offered = chosen[1].nodes.gpu_type
    if offered is not None and offered != resources.gpu_type:
        what = f"the GPUs in partition {chosen[0]!r} are {offered}, not {resources.gpu_type}"
        yield Problem("resources.gpu_type", what, f"write {offered}, take it away, or choose another partition")


def _too_much_memory(resources: Resources, cluster: Cluster) -> Iterator[Problem]:
    chosen = _partition(resources, cluster)
    if chosen is None:
        return
    offered = chosen[1].nodes.memory
    if resources.memory and offered and parse_bytes(resources.memory) > parse_bytes(offered):
        what = f"{resources.memory} per node is more than the {offered} in partition {chosen[0]!r}"
        yield Problem("resources.memory", what, f'write "{offered}" or less')


def _too_many_cpus(resources: Resources, where: str, nodes: NodeType) -> Iterator[Problem]:
    per_gpu = resources.cpus_per_gpu or 1
    wanted = per_gpu * resources.gpus_per_node
    if wanted > nodes.cpus:
        key = "gpus_per_node" if resources.cpus_per_gpu is None else "cpus_per_gpu"
        ranks = resources.gpus_per_node
        what = f"{ranks} ranks x {per_gpu} CPU cores = {wanted} are more than the {nodes.cpus} of a node {where}"
        most = nodes.cpus if resources.cpus_per_gpu is None else nodes.cpus // resources.gpus_per_node
        yield Problem(f"resources.{key}", what, f"write {most} or less" if most else "write fewer gpus_per_node")


Rule = Callable[[Resources, Cluster], Iterator[Problem]]
_RULES: tuple[Rule, ...] = (
    _no_partition,
    _too_long,
    _too_many_nodes,
    _too_many_ranks,
    _wrong_gpu_type,
    _too_much_memory,
)
