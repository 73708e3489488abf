"""Whether a site can give what a recipe asks for. Pure; every problem at once, its `where` a dotted key."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.cluster import Cluster, NodeType, Partition
from orchestrator.errors import Problem, did_you_mean
from orchestrator.recipe.schema import Resources
from orchestrator.units import parse_bytes, parse_walltime


def check_resources(resources: Resources, cluster: Cluster) -> tuple[Problem, ...]:
    """What `cluster` cannot give. A profile without partitions (this machine) promises nothing and refuses nothing."""
    if not cluster.partitions:
        return ()
    name = resources.partition or cluster.default_partition
    if name is None:
        known = ", ".join(cluster.partitions)
        what = f"the profile {cluster.name!r} has no default partition, and the recipe names none"
        return (Problem("resources.partition", what, f"choose one of: {known}"),)
    if name not in cluster.partitions:
        what = f"the profile {cluster.name!r} has no partition {name!r}"
        return (Problem("resources.partition", what, did_you_mean(name, cluster.partitions)),)
    partition = cluster.partitions[name]
    return (*_too_long(resources, name, partition), *_too_much(resources, name, partition.nodes, cluster))


def _too_long(resources: Resources, name: str, partition: Partition) -> Iterator[Problem]:
    wanted, most = resources.walltime, partition.max_walltime
    if wanted is not None and most is not None and parse_walltime(wanted) > parse_walltime(most):
        what = f"{wanted} is longer than partition {name!r} allows"
        yield Problem("resources.walltime", what, f'write "{most}" or less')


def _too_much(resources: Resources, name: str, nodes: NodeType, cluster: Cluster) -> Iterator[Problem]:
    where = f"in partition {name!r}"
    if resources.num_nodes > nodes.num_nodes:
        what = f"{resources.num_nodes} nodes are more than the {nodes.num_nodes} {where}"
        yield Problem("resources.num_nodes", what, f"write {nodes.num_nodes} or less")
    ranks_on_cpus = nodes.gpus == 0 and cluster.accelerator != "cuda"
    if resources.gpus_per_node > nodes.gpus and not ranks_on_cpus:
        what = f"{resources.gpus_per_node} GPUs per node are more than the {nodes.gpus} {where}"
        fix = f"write {nodes.gpus} or less, and more num_nodes" if nodes.gpus else "choose a partition with GPUs"
        yield Problem("resources.gpus_per_node", what, fix)
    else:
        yield from _too_many_cpus(resources, where, nodes)
    if resources.memory and nodes.memory and parse_bytes(resources.memory) > parse_bytes(nodes.memory):
        what = f"{resources.memory} per node is more than the {nodes.memory} {where}"
        yield Problem("resources.memory", what, f'write "{nodes.memory}" or less')


def _too_many_cpus(resources: Resources, where: str, nodes: NodeType) -> Iterator[Problem]:
    per_gpu = resources.cpus_per_gpu or 1
    wanted = per_gpu * resources.gpus_per_node
    if wanted > nodes.cpus:
        key = "gpus_per_node" if resources.cpus_per_gpu is None else "cpus_per_gpu"
        ranks = resources.gpus_per_node
        what = f"{ranks} ranks x {per_gpu} CPU cores = {wanted} are more than the {nodes.cpus} of a node {where}"
        most = nodes.cpus if resources.cpus_per_gpu is None else nodes.cpus // resources.gpus_per_node
        yield Problem(f"resources.{key}", what, f"write {most} or less" if most else "write fewer gpus_per_node")
