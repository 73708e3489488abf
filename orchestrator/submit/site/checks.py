"""Whether the Slurm that answered can give what a recipe asks for. Pure; every problem at once, by dotted key.

It goes further than sbatch: a time over MaxTime, too many nodes or an unknown quality of service may be accepted there,
and the job then waits for ever. What is only busy, down or reserved now is no problem: the job waits its turn.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

from orchestrator.cluster import Cluster
from orchestrator.errors import Problem, did_you_mean
from orchestrator.plan.resources import cpus_per_node, partition_name, resource_checks
from orchestrator.recipe.schema import Recipe, Resources
from orchestrator.submit.site.facts import Node, Partition, SlurmFacts
from orchestrator.survey import Check, readable
from orchestrator.units import format_mebibytes, format_walltime, parse_bytes, parse_walltime

Rule = Callable[[Resources, Cluster, SlurmFacts], Iterator[Problem]]


def live_problems(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> tuple[Problem, ...]:
    """What the Slurm of `facts` cannot give to whole `resources`, now or ever."""
    return tuple(problem for rule in _RULES for problem in rule(resources, cluster, facts))


def live_checks(cluster: Cluster, facts: SlurmFacts) -> tuple[Check[Recipe], ...]:
    """One check a rule; a key with which the profile has found fault already is not told twice."""

    def check_of(rule: Rule) -> Check[Recipe]:
        def check(recipe: Recipe) -> Iterator[Problem]:
            told = _told_by_profile(recipe, cluster)
            return (problem for problem in rule(recipe.resources, cluster, facts) if problem.where not in told)

        return check

    return tuple(map(check_of, _RULES))


def _told_by_profile(recipe: Recipe, cluster: Cluster) -> set[str]:
    told: set[str] = set()
    for check in resource_checks(cluster):
        with contextlib.suppress(AttributeError):  # what could not be read is told by its type
            told |= {problem.where for problem in check(recipe)}
    return told


def nodes_that_fit(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> tuple[Node, ...]:
    """The nodes of the partition, down or not, that have all that is asked of a node."""
    nodes = facts.nodes_of(partition_name(resources, cluster) or "")
    gpus = 0 if cluster.gpu_request == "none" else resources.gpus_per_node
    memory = parse_bytes(resources.memory) if resources.memory else 0
    cpus = cpus_per_node(resources, cluster) or 1
    return tuple(
        node
        for node in nodes
        if (node.gpus is None or node.num_gpus(resources.gpu_type) >= gpus)
        and node.cpus >= cpus
        and node.memory_bytes >= memory
        and _has_features(node, resources.constraint)
    )


def _partition(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Partition | None:
    return facts.partitions.get(partition_name(resources, cluster) or "")


def _offer(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> tuple[Partition, tuple[Node, ...]] | None:
    """The partition and its nodes; None where it is unknown (another rule says so), or its nodes are not shown."""
    partition = _partition(resources, cluster, facts)
    nodes = facts.nodes_of(partition.name) if partition else ()
    return (partition, nodes) if partition and nodes else None


def _unknown_partition(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    name = partition_name(resources, cluster)
    if name is not None and facts.partitions and name not in facts.partitions:
        whose = "" if resources.partition else ", which the profile names as its default"
        what = f"the cluster {facts.config.cluster_name!r} has no partition {name!r}{whose}"
        yield Problem("resources.partition", what, did_you_mean(name, facts.partitions))


def _closed_partition(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    partition = _partition(resources, cluster, facts)
    if partition is None:
        return
    fix = "wait for it, or add --offline to queue for it"
    if partition.state not in ("UP", "DOWN"):
        what, fix = f"partition {partition.name!r} takes no jobs: its state is {partition.state}", "wait for it"
    elif partition.state == "DOWN":
        what = f"partition {partition.name!r} starts no jobs: its state is DOWN"
    else:
        return
    open_ones = ", ".join(_open_partitions(facts))
    yield Problem("resources.partition", what, f"choose one of: {open_ones}; or {fix}" if open_ones else fix)


def _open_partitions(facts: SlurmFacts) -> list[str]:
    return sorted(
        name
        for name, partition in facts.partitions.items()
        if partition.state == "UP" and any(not node.down for node in facts.nodes_of(name))
    )


def _too_long(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    partition = _partition(resources, cluster, facts)
    if partition is None or partition.max_time_s is None or resources.walltime is None:
        return
    if parse_walltime(resources.walltime) > partition.max_time_s and not _lifts("PartitionTimeLimit", resources, facts):
        what = f"{resources.walltime} is longer than partition {partition.name!r} allows (MaxTime)"
        yield Problem("resources.walltime", what, f'write "{format_walltime(partition.max_time_s)}" or less')


def _too_many_nodes(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    partition, wanted = _partition(resources, cluster, facts), resources.num_nodes
    if partition is None:
        return
    there, most = len(facts.nodes_of(partition.name)), partition.max_nodes
    if most is not None and wanted > most and not _lifts("PartitionMaxNodes", resources, facts):
        what = f"{wanted} nodes are more than a job in partition {partition.name!r} may have (MaxNodes)"
        yield Problem("resources.num_nodes", what, f"write {most} or less")
    elif there and wanted > there:
        what = f"{wanted} nodes are more than the {there} in partition {partition.name!r}"
        yield Problem("resources.num_nodes", what, f"write {there} or less")


def _lifts(flag: str, resources: Resources, facts: SlurmFacts) -> bool:
    """Whether the quality of service that is asked for goes before this limit of the partition, as far as is known."""
    wanted = resources.qos
    return wanted is not None and (facts.qos is None or flag in facts.qos.get(wanted, ()))


def _unknown_gpu_type(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    offer, wanted = _offer(resources, cluster, facts), resources.gpu_type
    if offer is None or wanted is None or cluster.gpu_request == "none":
        return
    partition, nodes = offer
    if any(node.gpus is None or node.num_gpus(wanted) for node in nodes):
        return
    types = {kind for node in nodes for kind, _ in node.gpus or () if kind}
    what = f"no node in partition {partition.name!r} has a GPU of type {wanted!r}"
    fix = did_you_mean(wanted, types) if types else "take it away: Slurm knows no GPU types there"
    elsewhere = sorted(name for name in facts.partitions if any(n.num_gpus(wanted) for n in facts.nodes_of(name)))
    yield Problem("resources.gpu_type", what, f"{fix}; partition {elsewhere[0]!r} has it" if elsewhere else fix)


def _too_many_gpus(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    offer = _offer(resources, cluster, facts)
    if offer is None or cluster.gpu_request == "none" or any(node.gpus is None for node in offer[1]):
        return
    partition, nodes = offer
    most = max(node.num_gpus(resources.gpu_type) for node in nodes)
    if resources.gpus_per_node <= most or (resources.gpu_type and not most):
        return
    kind = f" {resources.gpu_type}" if resources.gpu_type else ""
    what = f"{resources.gpus_per_node}{kind} GPUs per node are more than a node in partition {partition.name!r} has"
    ranks = resources.gpus_per_node * (resources.num_nodes if readable(resources, "num_nodes") else 1)
    offered = sum(node.num_gpus(resources.gpu_type) for node in nodes)
    more = ", and more num_nodes" if ranks <= offered else f": there are {offered} GPUs in all"
    fix = f"write {most} or less{more}"
    if not most:
        what = f"no node in partition {partition.name!r} has GPUs"
        others = sorted(name for name in facts.partitions if any(n.num_gpus() for n in facts.nodes_of(name)))
        fix = f"choose one of: {', '.join(others)}" if others else "write gpu_request: none in the profile"
    yield Problem("resources.gpus_per_node", what, fix)


def _too_many_cpus(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    offer, wanted = _offer(resources, cluster, facts), cpus_per_node(resources, cluster)
    if offer is None or wanted is None:
        return
    partition, nodes = offer
    most = min(max(node.cpus for node in nodes), partition.max_cpus_per_node or wanted)
    if wanted > most:
        what = f"{wanted} CPU cores per node are more than a job gets on a node in partition {partition.name!r}"
        each = most // resources.gpus_per_node
        yield Problem("resources.cpus_per_gpu", what, f"write {each} or less" if each else "write fewer gpus_per_node")


def _too_much_memory(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    offer = _offer(resources, cluster, facts)
    if offer is None or resources.memory is None:
        return
    partition, nodes = offer
    wanted = parse_bytes(resources.memory)
    most = min(max(node.memory_bytes for node in nodes), partition.max_memory_bytes or wanted)
    if wanted > most:
        what = f"{resources.memory} per node is more than a job gets on a node in partition {partition.name!r}"
        yield Problem("resources.memory", what, f'write "{format_mebibytes(most)}" or less')


def _unknown_feature(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    offer = _offer(resources, cluster, facts)
    if offer is None or resources.constraint is None:
        return
    partition, nodes = offer
    known = {feature for node in nodes for feature in node.features}
    for word in _feature_words(resources.constraint):
        if word not in known:
            what = f"no node in partition {partition.name!r} has the feature {word!r}"
            fix = did_you_mean(word, known) if known else "take it away: its nodes have no features"
            yield Problem("resources.constraint", what, fix)


def _no_such_nodes(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    """Each wish can be met, but not all of them on enough nodes."""
    alone = (_too_many_nodes, _unknown_gpu_type, _too_many_gpus, _too_many_cpus, _too_much_memory, _unknown_feature)
    offer = _offer(resources, cluster, facts)
    if offer is None or any(list(rule(resources, cluster, facts)) for rule in alone):
        return
    partition, nodes = offer
    fit = len(nodes_that_fit(resources, cluster, facts))
    if fit < resources.num_nodes:
        what = f"{fit} of the {len(nodes)} nodes in partition {partition.name!r} have all that is asked of a node"
        fix = f"write {fit} or less, or ask less of each node" if fit else "ask less of each node"
        yield Problem("resources.num_nodes", what, fix)


def _unknown_account(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    wanted, partition = resources.account, _partition(resources, cluster, facts)
    if wanted is None:
        return
    mine = facts.associations
    if mine is not None and wanted.lower() not in {one.account for one in mine}:
        what = f"you have no account {wanted!r} on the cluster {facts.config.cluster_name!r}"
        known = sorted({one.account for one in mine})
        fix = did_you_mean(wanted, known) if known else "ask its administrators for one"
        yield Problem("resources.account", what, fix)
    elif partition is not None and not _may_use(partition, wanted, facts):
        what = f"the account {wanted!r} may not use partition {partition.name!r}"
        fix = f"choose one of: {', '.join(sorted(partition.allow_accounts))}" if partition.allow_accounts else ""
        yield Problem("resources.account", what, fix or "choose another account, or another partition")


def _may_use(partition: Partition, account: str, facts: SlurmFacts) -> bool:
    """Slurm keeps the names of accounts in small letters, and takes them in any."""
    name = account.lower()
    mine = [one.partition for one in facts.associations or () if one.account == name]
    bound_elsewhere = bool(mine) and not {"", partition.name}.intersection(mine)
    allowed = partition.allow_accounts is None or name in map(str.lower, partition.allow_accounts)
    return allowed and name not in map(str.lower, partition.deny_accounts) and not bound_elsewhere


def _unknown_qos(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Problem]:
    wanted, partition = resources.qos, _partition(resources, cluster, facts)
    if wanted is None:
        return
    account = (resources.account or "").lower()
    mine = {qos for one in facts.associations or () if account in ("", one.account) for qos in one.qos}
    if facts.qos is not None and wanted not in facts.qos:
        what = f"the cluster {facts.config.cluster_name!r} has no quality of service {wanted!r}"
        yield Problem("resources.qos", what, did_you_mean(wanted, mine or facts.qos))
    elif facts.config.enforces_qos and facts.associations is not None and wanted not in mine:
        what = f"your account may not use the quality of service {wanted!r}"
        yield Problem("resources.qos", what, did_you_mean(wanted, mine) if mine else "take it away")
    elif partition is not None and (
        wanted in partition.deny_qos or (partition.allow_qos is not None and wanted not in partition.allow_qos)
    ):
        what = f"partition {partition.name!r} does not take the quality of service {wanted!r}"
        fix = f"choose one of: {', '.join(sorted(partition.allow_qos))}" if partition.allow_qos else "take it away"
        yield Problem("resources.qos", what, fix)


def _feature_words(constraint: str) -> list[str]:
    """The features that a constraint names, without its `&`, `|`, counts and brackets."""
    return [word for word in re.split(r"\*\d+|[&|,\[\]()]", constraint) if word]


def _has_features(node: Node, constraint: str | None) -> bool:
    """Whether a node meets `a`, `a&b` or `a|b`; of anything richer only Slurm knows."""
    if constraint is None or re.search(r"[\[\]()*,]", constraint) or ("&" in constraint and "|" in constraint):
        return True
    words = set(_feature_words(constraint))
    return bool(words & node.features) if "|" in constraint else words <= node.features


_RULES: tuple[Rule, ...] = (
    _unknown_partition,
    _closed_partition,
    _too_long,
    _too_many_nodes,
    _unknown_gpu_type,
    _too_many_gpus,
    _too_many_cpus,
    _too_much_memory,
    _unknown_feature,
    _no_such_nodes,
    _unknown_account,
    _unknown_qos,
)
