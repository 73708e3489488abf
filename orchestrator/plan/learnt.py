"""What running out of memory has taught: the limit that the next plan keeps to. Pure; micro-batches in samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from orchestrator.cluster import Cluster
from orchestrator.plan.resources import partition_name
from orchestrator.recipe.schema import Recipe


@dataclass(frozen=True)
class LearntLimit:
    """The smallest micro-batch that ran out of memory on a kind of device, and the largest that did not."""

    failed: int
    worked: int | None
    """Below `failed`; None as long as no attempt has ended well."""
    device: str
    """Where this was; see `device_of`."""

    @property
    def largest_micro_batch(self) -> int:
        """What to plan with: what is known to work, else half of what failed. At least 1."""
        return self.worked or max(1, (self.failed + 1) // 2)

    def lowers(self, limit: int | None) -> bool:
        """Whether it allows less than another limit does; None for no limit."""
        return limit is None or self.largest_micro_batch < limit

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def after_failure(known: LearntLimit | None, micro_batch_size: int, *, device: str) -> LearntLimit:
    """What is known once a micro-batch of this size ran out of memory; what was known of another device is dropped."""
    if known is None or known.device != device:
        return LearntLimit(micro_batch_size, None, device)
    failed = min(known.failed, micro_batch_size)
    worked = known.worked if known.worked is not None and known.worked < failed else None
    return replace(known, failed=failed, worked=worked)


def after_success(known: LearntLimit, micro_batch_size: int) -> LearntLimit | None:
    """What is known once an attempt in micro-batches of this size has ended well; None: that refutes the limit."""
    if micro_batch_size >= known.failed:
        return None
    return replace(known, worked=max(known.worked or 0, micro_batch_size))


def limit_from_json(value: Any) -> LearntLimit | None:
    """The limit that `as_json` wrote; None for anything else."""
    try:
        limit = LearntLimit(**value)
        return limit if limit.failed > 0 else None
    except TypeError:
        return None


def device_of(recipe: Recipe, cluster: Cluster, accelerator: Literal["cuda", "cpu"]) -> str:
    """What a rank's memory belongs to, by the profile's words: the GPU's type and memory, or a CPU rank's share."""
    resources = recipe.resources
    partition = cluster.partitions.get(partition_name(resources, cluster) or "")
    nodes = None if partition is None else partition.nodes
    if accelerator == "cpu":
        memory = resources.memory or (nodes and nodes.memory)
        return f"cpu, {memory} for {resources.gpus_per_node} ranks" if memory else "cpu"
    named = (resources.gpu_type or (nodes and nodes.gpu_type), nodes and nodes.gpu_memory)
    return ", ".join(("cuda", *(word for word in named if word)))
