"""Slurm's own words as values: recorded from Slurm 22.05, and as other versions and other sites spell them."""

from __future__ import annotations

import pytest

from orchestrator.submit.site.facts import (
    Association,
    parse_associations,
    parse_config,
    parse_gpus,
    parse_nodes,
    parse_partitions,
    parse_qos,
    parse_state,
)
from tests.submit.site.slurm_answers import CONFIG, PARTITIONS, recorded_facts

NEWER_PARTITION = (
    "PartitionName=GPU nodes (h100) AllowGroups=ALL DenyAccounts=guest,trial AllowQos=normal,long AllocNodes=ALL "
    "Default=YES QoS=normal DefaultTime=03:00:00 DisableRootJobs=NO ExclusiveUser=NO ExclusiveTopo=NO GraceTime=120 "
    "Hidden=YES MaxNodes=UNLIMITED MaxTime=7-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=124 MaxCPUsPerSocket=UNLIMITED "
    "NodeSets=h100 Nodes=gh[101-132] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=YES:4 "
    "OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=4096 TotalNodes=32 SelectTypeParameters=NONE "
    "JobDefaults=DefCpuPerGPU=30 DefMemPerCPU=12000 MaxMemPerCPU=12000 "
    "TRES=cpu=3968,mem=49504000M,node=32,billing=4027,gres/gpu=128 TRESBillingWeights=CPU=1,Mem=0.0833G\n"
)
NEWER_NODE = (
    "NodeName=gh101 Arch=x86_64 CoresPerSocket=32 CPUAlloc=0 CPUEfctv=126 CPUTot=128 CPULoad=0.01 "
    "AvailableFeatures=GPU_SKU:H100,ib ActiveFeatures=GPU_SKU:H100,ib Gres=gpu:h100:8(S:0-1),mps:800 "
    "NodeAddr=gh101 NodeHostName=gh101 Version=24.11.5 OS=Linux 5.14.0 #1 SMP RealMemory=1031000 AllocMem=0 "
    "MemSpecLimit=7000 State=DOWN*+MAINTENANCE+NOT_RESPONDING ThreadsPerCore=1 Partitions=GPU nodes (h100) "
    "CfgTRES=cpu=126,mem=1031000M,billing=126,gres/gpu=8,gres/gpu:h100=8 "
    "Reason=fan of GPU 3, State=IDLE soon [root@2026-11-24T19:15:46] Comment=see Gres=gpu:1\n"
)


def test_the_recorded_configuration() -> None:
    config = parse_config(CONFIG)
    assert (config.cluster_name, config.version, config.kill_wait_s) == ("dev", "22.05.8", 5)
    assert (config.binds_cpus, config.selects_gpus, config.preempt_type) == (False, True, "preempt/partition_prio")
    assert config.enforces_accounts and not config.enforces_qos


@pytest.mark.parametrize(
    ("lines", "binds"),
    [
        ("TaskPlugin = task/affinity,task/cgroup", True),
        ("TaskPlugin = task/cgroup", False),
        ("TaskPlugin = task/cgroup\n\nCgroup Support Configuration:\nConstrainCores = yes", True),
        ("TaskPlugin = task/none\nConstrainCores = yes", False),
    ],
)
def test_tasks_are_bound_by_affinity_or_by_confined_cores(lines: str, binds: bool) -> None:
    assert parse_config(f"ClusterName = x\n{lines}\n").binds_cpus == binds


@pytest.mark.parametrize(
    ("words", "accounts", "qos"),
    [
        ("none", False, False),
        ("(null)", False, False),
        ("limits", True, False),
        ("associations,limits,qos,safe", True, True),
    ],
)
def test_what_sbatch_refuses_by_accounting(words: str, accounts: bool, qos: bool) -> None:
    config = parse_config(f"ClusterName = x\nAccountingStorageEnforce = {words}\n")
    assert (config.enforces_accounts, config.enforces_qos) == (accounts, qos)


def test_a_text_that_names_no_cluster_is_no_configuration() -> None:
    with pytest.raises(ValueError, match="does not name a cluster"):
        parse_config("command not understood\n")


def test_the_recorded_partitions() -> None:
    partitions = parse_partitions(PARTITIONS)
    assert list(partitions) == ["debug", "preempt", "small", "off", "inact", "four", "empty"]
    debug, small = partitions["debug"], partitions["small"]
    assert (debug.default, debug.max_time_s, debug.max_nodes, debug.allow_accounts) == (True, 12 * 3600, None, None)
    assert (small.max_time_s, small.max_nodes, small.max_cpus_per_node) == (7 * 86400, 1, 4)
    assert (small.max_memory_bytes, small.grace_time_s, small.preempt_mode) == (3000 * 1024**2, 30, "REQUEUE")
    assert (small.allow_accounts, small.allow_qos) == (frozenset({"other"}), frozenset({"normal"}))
    assert (partitions["off"].state, partitions["inact"].state) == ("DOWN", "INACTIVE")
    assert partitions["preempt"].max_time_s is None


def test_the_recorded_nodes() -> None:
    facts = recorded_facts()
    assert [node.name for node in facts.nodes_of("small")] == ["node1", "node2"]
    assert facts.nodes_of("empty") == ()
    first, _, third, fourth = facts.nodes
    assert (first.cpus, first.memory_bytes, first.gpus) == (8, 6000 * 1024**2, (("a100", 4),))
    assert first.features == {"ib", "a100"} and fourth.features == frozenset()
    assert third.gpus == (("a100", 2), ("v100", 2)) and third.num_gpus() == 4 and third.num_gpus("v100") == 2
    assert [node.down for node in facts.nodes] == [False, False, True, True]


def test_a_newer_partition_whose_name_has_spaces_and_whose_lists_deny() -> None:
    (partition,) = parse_partitions(NEWER_PARTITION).values()
    assert (partition.name, partition.hidden, partition.max_cpus_per_node) == ("GPU nodes (h100)", True, 124)
    assert (partition.allow_accounts, partition.deny_accounts) == (None, frozenset({"guest", "trial"}))
    assert (partition.max_time_s, partition.max_memory_bytes, partition.grace_time_s) == (7 * 86400, None, 120)


def test_a_newer_node_keeps_what_is_set_aside_and_its_free_text_sets_nothing() -> None:
    (node,) = parse_nodes(NEWER_NODE)
    assert (node.cpus, node.memory_bytes) == (126, 1_024_000 * 1024**2)
    assert (node.gpus, node.partitions) == ((("h100", 8),), frozenset({"GPU nodes (h100)"}))
    assert node.features == {"GPU_SKU:H100", "ib"}
    assert node.down and node.state == {"DOWN", "MAINTENANCE", "NOT_RESPONDING"}


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", ()),
        ("", ()),
        ("gpu:4", ((None, 4),)),
        ("gpu", ((None, 1),)),
        ("gpu:a100", (("a100", 1),)),
        ("gpu:a100:8(S:0-1)", (("a100", 8),)),
        ("gpu:a100:8(S:0,2),gpu:v100:2(S:1)", (("a100", 8), ("v100", 2))),
        ("gpu:a100_1g.5gb:7", (("a100_1g.5gb", 7),)),
        ("gpu:3g.20gb:2", (("3g.20gb", 2),)),
        ("gpu:3090:4(S:0-1)", (("3090", 4),)),
        ("gpu:3090:no_consume:4", (("3090", 4),)),
        ("gpu:a100:no_consume:4", (("a100", 4),)),
        ("gpu:no_consume:4", ((None, 4),)),
        ("mps:100,gpu:2,shard:8,craynetwork:4", ((None, 2),)),
        ("gpumem:80", ()),
        ("gpu:tesla:2K", None),
        ("gpu:a100:4,gpu:4:2:1", None),
        ("gpu=4", None),
    ],
)
def test_gpus_in_each_spelling_of_gres_and_none_in_one_that_is_not_known(
    gres: str, gpus: tuple[tuple[str | None, int], ...] | None
) -> None:
    assert parse_gpus(gres) == gpus


@pytest.mark.parametrize(
    ("text", "down", "free"),
    [
        ("IDLE", False, True),
        ("MIXED+PLANNED", False, True),
        ("IDLE~", False, True),
        ("IDLE+CLOUD+POWERED_DOWN", False, True),
        ("ALLOCATED#", False, True),
        ("IDLE+RESERVED", False, False),
        ("IDLE+MAINTENANCE+RESERVED", False, False),
        ("MAINT", False, False),
        ("DOWN*", True, False),
        ("IDLE*", True, False),
        ("MIXED+DRAIN", True, False),
        ("IDLE+NOT_RESPONDING", True, False),
        ("DOWN+DRAIN+INVALID_REG", True, False),
        ("FAIL", True, False),
    ],
)
def test_a_node_is_in_service_or_not_and_free_for_all_or_not(text: str, down: bool, free: bool) -> None:
    (node,) = parse_nodes(f"NodeName=n CPUTot=8 RealMemory=1 State={text} Partitions=p\n")
    assert (node.down, node.free_for_all) == (down, free)
    assert "*" not in "".join(parse_state(text))


def test_features_that_slurm_may_reboot_a_node_into_are_there() -> None:
    (node,) = parse_nodes("NodeName=n AvailableFeatures=mig,full ActiveFeatures=full State=IDLE Partitions=p\n")
    assert node.features == {"mig", "full"}


def test_accounts_and_qualities_of_service() -> None:
    assert parse_associations("dev||normal,high\nlab|small|\nnonsense\n") == (
        Association("dev", "", frozenset({"normal", "high"})),
        Association("lab", "small", frozenset()),
    )
    assert parse_qos("normal|\n\nlong|DenyOnLimit,PartitionTimeLimit\nnonsense\n") == {
        "normal": frozenset(),
        "long": frozenset({"DenyOnLimit", "PartitionTimeLimit"}),
    }
