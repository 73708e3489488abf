"""Cluster profiles: YAML files that say what a site offers, read with every problem told at its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.cluster import Cluster
from orchestrator.documents import read_document
from orchestrator.errors import ClusterError, Problem
from orchestrator.survey import surveyed


def read_profile(path: Path | str) -> Cluster:
    """The profile in the YAML file `path`, its `slurm_conf` made absolute. Raises ClusterError with all problems."""
    cluster = surveyed(Cluster, read_document(path, ClusterError), (check_cluster,), ClusterError)
    if cluster.slurm_conf is None:
        return cluster
    return cluster.model_copy(update={"slurm_conf": str((Path(path).parent / cluster.slurm_conf).absolute())})


def check_cluster(cluster: Cluster) -> Iterator[Problem]:
    """What the keys of a profile must be to each other; `where` is a dotted key."""
    defaults = [name for name, partition in cluster.partitions.items() if partition.default]
    for name in defaults[1:]:
        what = f"{defaults[0]!r} is the default partition already"
        yield Problem(f"partitions.{name}.default", what, "mark one partition as the default")
    if cluster.scheduler == "slurm" and not cluster.partitions:
        example = "partitions: {main: {nodes: {num_nodes: 4, gpus: 8, cpus: 64}, default: true}}"
        yield Problem("partitions", "missing: a Slurm site has at least one", f"write '{example}'")
