"""The shapes that a site offers a recipe: nodes x GPUs per node in a partition, few of the many. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.cluster import Cluster, NodeType
from orchestrator.plan.batch import divisors
from orchestrator.plan.plan import partition_of
from orchestrator.plan.resources import check_resources
from orchestrator.recipe.schema import Recipe

MOST_SHAPES = 24
MOST_TRAPS = 5
"""Of these, shapes that cannot share the batch."""


@dataclass(frozen=True)
class Shape:
    """An allocation that could be asked for."""

    num_nodes: int
    gpus_per_node: int
    partition: str | None

    @property
    def world_size(self) -> int:
        return self.num_nodes * self.gpus_per_node


def shaped(recipe: Recipe, shape: Shape) -> Recipe:
    """`recipe` asking for `shape`."""
    changes = {"num_nodes": shape.num_nodes, "gpus_per_node": shape.gpus_per_node, "partition": shape.partition}
    return recipe.model_copy(update={"resources": recipe.resources.model_copy(update=changes)})


def own_shape(recipe: Recipe, cluster: Cluster) -> Shape:
    """What the recipe asks for."""
    resources = recipe.resources
    return Shape(resources.num_nodes, resources.gpus_per_node, partition_of(recipe, cluster))


def candidate_shapes(recipe: Recipe, cluster: Cluster) -> list[Shape]:
    """At most MOST_SHAPES shapes that `cluster` can give to the recipe, its own one first whether it can or not.

    In every partition: GPUs per node that are a power of two, the whole node, or the recipe's own number; nodes that
    are 1, 2, 4, ... or 3, 6, 12, ... (the usual trap), all there are, the recipe's own number, or make a world that
    divides the batch. Of those that share the batch, whole nodes and single nodes are taken first, then the recipe's
    own GPUs per node, then the rest; within each of these the worlds nearest to the recipe's own, in its own
    partition before others. Up to MOST_TRAPS shapes that cannot share it are added, each world once.
    """
    own = own_shape(recipe, cluster)
    offered = [shape for shape in dict.fromkeys(_offered(recipe, cluster, own)) if shape != own]
    order = {name: index for index, name in enumerate(cluster.partitions)}

    def priority(shape: Shape) -> tuple[object, ...]:
        usual = shape.num_nodes == 1 or shape.gpus_per_node == _ranks_of_node(recipe, cluster, shape.partition)
        kind = 0 if usual else 1 if shape.gpus_per_node == own.gpus_per_node else 2
        place = order[shape.partition or ""]
        return kind, distance(shape, own), shape.partition != own.partition, place, shape.num_nodes

    batch = samples_per_step(recipe)
    offered.sort(key=priority)
    sharing = [shape for shape in offered if batch is None or batch % shape.world_size == 0]
    others = {shape.world_size: shape for shape in reversed(offered) if batch is not None and batch % shape.world_size}
    others.pop(own.world_size, None)
    traps = sorted(others.values(), key=priority)[:MOST_TRAPS]
    return [own, *sharing[: MOST_SHAPES - 1 - len(traps)], *traps]


def samples_per_step(recipe: Recipe) -> int | None:
    """The effective batch in samples; None where it is an output (`per_gpu`)."""
    batch = recipe.batch
    return None if batch.effective is None else batch.effective // (batch.sequence_length or 1)


def distance(shape: Shape, own: Shape) -> float:
    """How far apart two worlds are, in doublings."""
    return abs(math.log2(shape.world_size / own.world_size))


def _offered(recipe: Recipe, cluster: Cluster, own: Shape) -> Iterator[Shape]:
    sizes = divisors(samples_per_step(recipe) or 1)
    for name, partition in cluster.partitions.items():
        whole = _ranks_of_node(recipe, cluster, name)
        for gpus in {*_doublings(1, whole), whole, own.gpus_per_node} - {0}:
            sharing = {size // gpus for size in sizes if size % gpus == 0}
            for num_nodes in sorted(sharing | _usual_counts(partition.nodes, own)):
                shape = Shape(num_nodes, gpus, name)
                if not check_resources(shaped(recipe, shape).resources, cluster):
                    yield shape


def _usual_counts(nodes: NodeType, own: Shape) -> set[int]:
    most = nodes.num_nodes
    return {*_doublings(1, most), *_doublings(3, most), most, own.num_nodes}


def _doublings(start: int, most: int) -> Iterator[int]:
    while start <= most:
        yield start
        start *= 2


def _ranks_of_node(recipe: Recipe, cluster: Cluster, partition: str | None) -> int:
    """Ranks on a whole node: its GPUs, or on a node without any as many as its cores carry."""
    nodes = cluster.partitions[partition or ""].nodes
    if nodes.gpus or cluster.accelerator == "cuda":
        return nodes.gpus
    return nodes.cpus // (recipe.resources.cpus_per_gpu or 1)


def left_out(recipe: Recipe, cluster: Cluster) -> dict[str, str]:
    """Partitions that cannot give even one GPU to the recipe, each with the reason."""
    single = {name: shaped(recipe, Shape(1, 1, name)).resources for name in cluster.partitions}
    problems = {name: check_resources(resources, cluster) for name, resources in single.items()}
    return {name: found[0].what for name, found in problems.items() if found}
