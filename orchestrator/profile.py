"""Cluster profiles: YAML files that say what a site offers, read with every problem told at its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.cluster import Cluster
from orchestrator.documents import read_document
from orchestrator.errors import ClusterError, Problem
from orchestrator.survey import Survey, survey


def read_profile(path: Path | str) -> Cluster:
    """The profile in the YAML file `path`, its `slurm_conf` made absolute. Raises ClusterError with all problems."""
    found = survey_profile(path)
    if found.problems:
        raise ClusterError(found.problems)
    return found.value


def survey_profile(path: Path | str) -> Survey[Cluster]:
    """The same with its problems as data beside what could be read. Raises ClusterError for a file without YAML."""
    found = survey(Cluster, read_document(path, ClusterError), _CHECKS)
    if found.problems or found.value.slurm_conf is None:
        return found
    absolute = str((Path(path).parent / found.value.slurm_conf).absolute())
    return Survey(found.value.model_copy(update={"slurm_conf": absolute}), ())


def _one_default(cluster: Cluster) -> Iterator[Problem]:
    defaults = [name for name, partition in cluster.partitions.items() if partition.default]
    for name in defaults[1:]:
        what = f"{defaults[0]!r} is the default partition already"
        yield Problem(f"partitions.{name}.default", what, "mark one partition as the default")


def _some_partition(cluster: Cluster) -> Iterator[Problem]:
    if cluster.scheduler == "slurm" and not cluster.partitions:
        example = "partitions: {main: {nodes: {num_nodes: 4, gpus: 8, cpus: 64}, default: true}}"
        yield Problem("partitions", "missing: a Slurm site has at least one", f"write '{example}'")


_CHECKS = (_one_default, _some_partition)
"""What the keys of a profile must be to each other; the `where` of a problem is a dotted key."""
