"""What machines offer: cluster profiles (YAML in the top-level `cluster/`), and the allocation a job gets. Frozen.

A profile is data about a site, written once; a recipe never mentions it. `LOCAL` equals `cluster/local.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.field_types import Count, Memory, Name, Walltime


class _Profile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class NodeType(_Profile):
    """The nodes of a partition: how many there are and what each has."""

    num_nodes: Count = Field(examples=["4"], description="Nodes of this kind.")
    gpus: Annotated[int, Field(ge=0)] = Field(default=0, description="GPUs per node.")
    gpu_type: str | None = Field(default=None, description="GPU type, as the scheduler calls it.")
    gpu_memory: Memory | None = Field(default=None, description='Memory of one GPU, such as "80G".')
    cpus: Count = Field(examples=["64"], description="CPU cores per node.")
    memory: Memory | None = Field(default=None, description='Memory per node, such as "512G".')


class Partition(_Profile):
    """A queue: its nodes and its longest walltime."""

    nodes: NodeType = Field(examples=["{num_nodes: 4, gpus: 8, cpus: 64}"], description="The nodes it reaches.")
    max_walltime: Walltime | None = Field(default=None, description='Longest walltime, in quotes: "24:00:00".')
    default: bool = Field(default=False, description="Used when a recipe names no partition.")
    grace_s: Count | None = Field(
        default=None, description="Seconds that a preempted job has after SIGTERM, where they are more (GraceTime)."
    )


class Cluster(_Profile):
    """One site: how jobs are started there and what its nodes have."""

    name: Name = Field(examples=["mycluster"], description="The site's name.")
    scheduler: Literal["local", "slurm"] = Field(
        examples=["slurm"], description="`local`: the driver runs on this machine."
    )
    accelerator: Literal["cuda", "cpu", "auto"] = Field(
        default="auto",
        description="`cuda`: a missing device fails the node's check. `cpu`: each declared GPU is one rank over gloo.",
    )
    binds_cpus: bool = Field(
        default=False, description="True where the scheduler pins tasks; then a wrong affinity fails the node's check."
    )
    gpu_request: Literal["gpus-per-node", "gres", "none"] = Field(
        default="gpus-per-node", description="The sbatch option by which this site asks for GPUs."
    )
    slurm_cluster: str | None = Field(
        default=None, description="ClusterName of this Slurm: checks against another one would mean nothing."
    )
    slurm_conf: str | None = Field(default=None, description="Path of slurm.conf, relative to the profile.")
    network_interface: str | None = Field(
        default=None, description="Interface for rendezvous and gloo (default: the one that reaches the head node)."
    )
    shutdown_grace_s: Count = Field(
        default=25, description="Seconds between the scheduler's SIGTERM and its SIGKILL (KillWait)."
    )
    node_timeout_s: Count = Field(
        default=300, description="Seconds after which the scheduler takes a silent node for lost (SlurmdTimeout)."
    )
    partitions: dict[str, Partition] = Field(default_factory=dict, description="The queues, by name.")

    def grace_in(self, partition: str | None) -> int:
        """Seconds between SIGTERM and SIGKILL for a job in `partition` that makes way for another one."""
        found = self.partitions.get(partition or "")
        return max(self.shutdown_grace_s, (found and found.grace_s) or 0)

    @property
    def default_partition(self) -> str | None:
        """The name of the partition marked `default`."""
        return next((name for name, partition in self.partitions.items() if partition.default), None)


LOCAL = Cluster.model_construct(name="local", scheduler="local", accelerator="auto")
"""This machine. Constructed without validation: building the validator would cost every start 30 ms."""


@dataclass(frozen=True)
class Allocation:
    """The machines a job runs on: asked for (node_names empty) or really got."""

    num_nodes: int
    gpus_per_node: int
    cpus_per_node: int | None = None
    node_names: tuple[str, ...] = ()
    accelerator: Literal["cuda", "cpu"] = "cpu"

    @property
    def world_size(self) -> int:
        return self.num_nodes * self.gpus_per_node
