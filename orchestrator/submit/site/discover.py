"""A cluster profile from what Slurm says of itself: three questions, one value, with a note where a number is a choice.

A profile promises one kind of node for each partition. Where the nodes of a partition differ, the kind is chosen that
offers most GPUs in all, and every node that has at least as much counts: what the profile promises Slurm can give, and
what it leaves out is named beside it. The live check of `plan` and `submit` knows all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.cluster import Cluster, NodeType
from orchestrator.cluster import Partition as ProfilePartition
from orchestrator.errors import ClusterError, Problem, SubmissionError
from orchestrator.patterns import NAME, WORDS
from orchestrator.submit.site.facts import Node, Partition, SlurmFacts
from orchestrator.submit.site.questions import Questions
from orchestrator.units import format_walltime

DISCOVER_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Discovered:
    """A profile and what a reader should know of it: notes by dotted key, "" for the whole."""

    cluster: Cluster
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """Nodes that are alike to a job."""

    gpus: tuple[tuple[str | None, int], ...]
    cpus: int
    memory_bytes: int

    @classmethod
    def of(cls, node: Node) -> Kind:
        return cls(tuple(sorted(node.gpus or (), key=str)), node.cpus, node.memory_bytes)

    @property
    def num_gpus(self) -> int:
        return sum(count for _, count in self.gpus)

    @property
    def gpu_type(self) -> str | None:
        """The type of its GPUs; None where Slurm names none, or they differ."""
        types = {kind for kind, _ in self.gpus}
        return types.pop() if len(types) == 1 else None

    def holds(self, other: Kind) -> bool:
        """Whether it has all that `other` promises."""
        of_type = sum(count for kind, count in self.gpus if other.gpu_type in (None, kind))
        return of_type >= other.num_gpus and self.cpus >= other.cpus and self.memory_bytes >= other.memory_bytes

    def __str__(self) -> str:
        gpus = " + ".join(f"{count} {kind or ''} GPUs".replace("  ", " ") for kind, count in self.gpus) or "no GPUs"
        return f"{gpus}, {self.cpus} CPUs, {self.memory_bytes // 1024**2}M"


def discover(*, name: str | None) -> Discovered:
    """The profile of the Slurm that this shell reaches, called `name` (default: its ClusterName).

    Raises SubmissionError when there is no Slurm, or it does not answer in 10 s; ClusterError for an unusable name.
    """
    if name is not None and not re.fullmatch(NAME, name):
        raise ClusterError(Problem("--name", f"{name!r} does not fit here", f"write {WORDS[NAME]}"))
    questions = Questions(None, timeout_s=DISCOVER_TIMEOUT_S)
    facts, _ = questions.facts(questions.config(), accounting=False)
    conf = os.environ.get("SLURM_CONF")
    return profile_of(facts, name=name, slurm_conf=str(Path(conf).absolute()) if conf else None)


def profile_of(facts: SlurmFacts, *, name: str | None, slurm_conf: str | None) -> Discovered:
    """The profile of the Slurm of `facts`. Raises SubmissionError when it shows no partition with nodes."""
    config = facts.config
    usable = {p.name: p for p in facts.partitions.values() if facts.nodes_of(p.name) and not p.root_only}
    if not usable:
        raise SubmissionError(Problem("scontrol", "Slurm shows no partition with nodes", "ask its administrators"))
    notes = {"": _notes_of_all(facts, usable), "binds_cpus": (f"TaskPlugin={config.task_plugin}",)}
    notes |= {"shutdown_grace_s": ("KillWait",), "node_timeout_s": ("SlurmdTimeout",)}
    kinds = {name: chosen_kind(facts.nodes_of(name)) for name in usable}
    has_gpus = any(kind.num_gpus for kind in kinds.values()) or any(_strange(facts, name) for name in usable)
    if has_gpus:
        notes["accelerator"] = ("write cpu where its GPUs have no driver: each is one rank over gloo then",)
    for partition in usable.values():
        notes[f"partitions.{partition.name}"] = tuple(_notes_of(partition, facts, kinds[partition.name]))
    cluster = Cluster(
        name=name or _as_name(config.cluster_name),
        scheduler="slurm",
        accelerator="cuda" if has_gpus else "cpu",
        binds_cpus=config.binds_cpus,
        gpu_request=("gpus-per-node" if config.selects_gpus else "gres") if has_gpus else "none",
        slurm_cluster=config.cluster_name,
        slurm_conf=slurm_conf,
        shutdown_grace_s=max(1, config.kill_wait_s),
        node_timeout_s=config.node_timeout_s,
        partitions={name: _promise(usable[name], facts, kinds[name]) for name in usable},
    )
    return Discovered(cluster, {key: lines for key, lines in notes.items() if lines})


def chosen_kind(nodes: Iterable[Node]) -> Kind:
    """The kind with most GPUs in all (then CPUs, then memory), every node counted that holds it."""
    kinds = list(map(Kind.of, nodes))

    def worth(kind: Kind) -> tuple[int, int, int]:
        num_nodes = sum(other.holds(kind) for other in kinds)
        return (num_nodes * kind.num_gpus, num_nodes * kind.cpus, num_nodes * kind.memory_bytes)

    return max(sorted(set(kinds), key=str), key=worth)


def _promise(partition: Partition, facts: SlurmFacts, kind: Kind) -> ProfilePartition:
    holding = sum(Kind.of(node).holds(kind) for node in facts.nodes_of(partition.name))
    cpus = min(kind.cpus, partition.max_cpus_per_node or kind.cpus)
    memory = min(kind.memory_bytes, partition.max_memory_bytes or kind.memory_bytes) // 1024**2
    return ProfilePartition(
        nodes=NodeType(
            num_nodes=min(holding, partition.max_nodes or holding),
            gpus=kind.num_gpus,
            gpu_type=kind.gpu_type,
            cpus=max(1, cpus),
            memory=f"{memory}M" if memory > 1 else None,  # 1 is Slurm's default for a node whose memory is not declared
        ),
        max_walltime=format_walltime(partition.max_time_s) if partition.max_time_s else None,
        default=partition.default,
        grace_s=partition.grace_time_s if partition.grace_time_s > facts.config.kill_wait_s else None,
    )


def _notes_of_all(facts: SlurmFacts, usable: Mapping[str, Partition]) -> tuple[str, ...]:
    config = facts.config
    notes = [f"Written by `orchestrate cluster discover` from Slurm {config.version}: check it, correct what differs."]
    left_out = sorted(name for name in facts.partitions if name not in usable)
    if left_out:
        notes.append(f"Left out, without nodes or for root alone: {', '.join(left_out)}.")
    if config.preempt_type == "preempt/qos":
        notes.append("Jobs of a lower quality of service make way for those of a higher one (PreemptType=preempt/qos).")
    return tuple(notes)


def _notes_of(partition: Partition, facts: SlurmFacts, kind: Kind) -> Iterator[str]:
    stronger = _makes_way_for(partition, facts)
    if stronger:
        warned = f", {partition.grace_time_s} s after a SIGTERM" if partition.grace_time_s else ""
        mode = f"PreemptMode={partition.preempt_mode}"
        yield f"jobs here make way for jobs in {', '.join(stronger)} ({mode}{warned})"
    if partition.state != "UP":
        yield f"its state was {partition.state}"
    if partition.hidden:
        yield "hidden: Slurm lists it only when asked for all"
    if partition.allow_accounts is not None:
        yield f"for the accounts {', '.join(sorted(partition.allow_accounts))} only"
    if partition.deny_accounts:
        yield f"not for the accounts {', '.join(sorted(partition.deny_accounts))}"
    if partition.allow_qos is not None:
        yield f"for the qualities of service {', '.join(sorted(partition.allow_qos))} only"
    if strange := _strange(facts, partition.name):
        yield f"write gpus and gpu_type yourself: what Slurm says of those of {', '.join(strange)} is not understood"
    others = sorted({str(Kind.of(node)) for node in facts.nodes_of(partition.name)} - {str(kind)})
    for other in others:
        count = sum(str(Kind.of(node)) == other for node in facts.nodes_of(partition.name))
        yield f"its nodes differ: {count} of them with {other}"


def _strange(facts: SlurmFacts, partition: str) -> list[str]:
    """Nodes whose GPUs are written in words that are not understood."""
    return [node.name for node in facts.nodes_of(partition) if node.gpus is None]


def _makes_way_for(partition: Partition, facts: SlurmFacts) -> list[str]:
    """Partitions whose jobs preempt this one's: a higher tier on the same nodes."""
    if facts.config.preempt_type != "preempt/partition_prio" or partition.preempt_mode == "OFF":
        return []
    mine = {node.name for node in facts.nodes_of(partition.name)}
    return sorted(
        other.name
        for other in facts.partitions.values()
        if other.priority_tier > partition.priority_tier and mine & {n.name for n in facts.nodes_of(other.name)}
    )


def _as_name(cluster_name: str) -> str:
    """A ClusterName as the name of a profile."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", cluster_name).lstrip("_.-")[:64] or "cluster"
