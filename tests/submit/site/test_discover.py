"""A profile from what Slurm says of itself: it reads back, equal facts give equal text, and its promise is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.render.cluster import profile_text
from orchestrator.cluster import Cluster
from orchestrator.errors import SubmissionError
from orchestrator.plan.resources import check_resources
from orchestrator.profile import read_profile
from orchestrator.recipe.schema import Resources
from orchestrator.submit.site.checks import live_problems
from orchestrator.submit.site.discover import chosen_kind, profile_of
from orchestrator.submit.site.facts import Node, Partition, SlurmFacts, parse_nodes
from tests.submit.site.slurm_answers import recorded_answers, recorded_facts
from tests.support.command_line import orchestrate
from tests.support.fake_slurm import FakeSlurm

RECORDED = """\
# Written by `orchestrate cluster discover` from Slurm 22.05.8: check it, correct what differs.
# Left out, without nodes or for root alone: empty.
name: lab
scheduler: slurm
accelerator: cuda    # write cpu where its GPUs have no driver: each is one rank over gloo then
binds_cpus: false    # TaskPlugin=task/none
gpu_request: gpus-per-node
slurm_cluster: dev
slurm_conf: "/etc/slurm/slurm.conf"
shutdown_grace_s: 5    # KillWait
node_timeout_s: 20    # SlurmdTimeout
partitions:
  debug:
    # its nodes differ: 1 of them with 4 GPUs, 8 CPUs, 6000M
    # its nodes differ: 2 of them with 4 a100 GPUs, 8 CPUs, 6000M
    default: true
    max_walltime: "12:00:00"
    nodes: {num_nodes: 4, gpus: 4, cpus: 8, memory: "5000M"}
  preempt:
    # jobs here make way for jobs in debug (PreemptMode=REQUEUE)
    # its nodes differ: 1 of them with 4 GPUs, 8 CPUs, 6000M
    # its nodes differ: 2 of them with 4 a100 GPUs, 8 CPUs, 6000M
    nodes: {num_nodes: 4, gpus: 4, cpus: 8, memory: "5000M"}
  small:
    # jobs here make way for jobs in debug (PreemptMode=REQUEUE, 30 s after a SIGTERM)
    # for the accounts other only
    # for the qualities of service normal only
    grace_s: 30
    max_walltime: "168:00:00"
    nodes: {num_nodes: 1, gpus: 4, gpu_type: a100, cpus: 4, memory: "3000M"}
  "off":
    # jobs here make way for jobs in debug (PreemptMode=REQUEUE)
    # its state was DOWN
    nodes: {num_nodes: 1, gpus: 4, gpu_type: a100, cpus: 8, memory: "6000M"}
  inact:
    # jobs here make way for jobs in debug (PreemptMode=REQUEUE)
    # its state was INACTIVE
    nodes: {num_nodes: 1, gpus: 4, gpu_type: a100, cpus: 8, memory: "6000M"}
  four:
    # jobs here make way for jobs in debug (PreemptMode=CANCEL)
    nodes: {num_nodes: 1, gpus: 4, cpus: 8, memory: "6000M"}
"""


def discovered(facts: SlurmFacts) -> Cluster:
    return profile_of(facts, name=None, slurm_conf=None).cluster


def node(**changes: object) -> Node:
    return replace(Node("n", frozenset({"p"}), 64, 512 * 1024**3, (("a100", 8),)), **changes)  # type: ignore[arg-type]


def test_the_recorded_cluster_gives_this_profile() -> None:
    found = profile_of(recorded_facts(), name="lab", slurm_conf="/etc/slurm/slurm.conf")
    assert profile_text(found) == RECORDED


def test_the_text_reads_back_as_the_same_values(tmp_path: Path) -> None:
    found = profile_of(recorded_facts(), name=None, slurm_conf="/etc/slurm/slurm.conf")
    (tmp_path / "mine.yaml").write_text(profile_text(found))
    assert read_profile(tmp_path / "mine.yaml") == found.cluster


def test_where_nodes_differ_the_kind_with_most_gpus_counts_and_every_node_that_holds_it() -> None:
    small = node(gpus=(("a100", 4),), cpus=32)
    none = node(gpus=())
    assert chosen_kind([none, none, none, none, none, small, node()]).num_gpus in (4, 8)
    nodes = (*[none] * 90, *[small] * 10, *[node()] * 4)
    facts = recorded_facts(partitions={"p": Partition("p")}, nodes=nodes)
    promise = discovered(facts).partitions["p"].nodes
    assert (promise.num_nodes, promise.gpus, promise.gpu_type, promise.cpus) == (14, 4, "a100", 32)
    notes = profile_of(facts, name=None, slurm_conf=None).notes["partitions.p"]
    assert notes == (
        "its nodes differ: 4 of them with 8 a100 GPUs, 64 CPUs, 524288M",
        "its nodes differ: 90 of them with no GPUs, 64 CPUs, 524288M",
    )


def test_a_site_without_gpus_runs_ranks_on_cpus_and_asks_for_none() -> None:
    found = discovered(recorded_facts(partitions={"p": Partition("p")}, nodes=(node(gpus=()),)))
    assert (found.accelerator, found.gpu_request) == ("cpu", "none")


def test_without_cons_tres_gpus_are_asked_for_by_gres() -> None:
    facts = recorded_facts()
    assert discovered(facts).gpu_request == "gpus-per-node"
    assert discovered(replace(facts, config=replace(facts.config, selects_gpus=False))).gpu_request == "gres"


def test_preemption_by_quality_of_service_is_a_note_on_the_whole() -> None:
    facts = recorded_facts()
    by_qos = replace(facts, config=replace(facts.config, preempt_type="preempt/qos"))
    notes = profile_of(by_qos, name=None, slurm_conf=None).notes
    assert notes[""][-1].endswith("(PreemptType=preempt/qos).")
    assert not any("make way" in note for key, lines in notes.items() if key for note in lines)


def test_a_slurm_that_shows_no_nodes_gives_no_profile() -> None:
    with pytest.raises(SubmissionError, match="no partition with nodes"):
        discovered(recorded_facts(nodes=()))


types = st.sampled_from([None, "a100", "v100", "3g.20gb"])
nodes = st.builds(
    Node,
    name=st.integers(0, 99).map("n{}".format),
    partitions=st.frozensets(st.sampled_from(["no", "0100", "gpu", "GPU nodes (amd)", "null"]), min_size=1),
    cpus=st.integers(1, 256),
    memory_bytes=st.integers(1, 4_000_000).map(lambda mebibytes: mebibytes * 1024**2),
    gpus=st.lists(st.tuples(types, st.integers(1, 8)), max_size=2, unique_by=lambda gpu: gpu[0]).map(tuple),
)


@st.composite
def clusters(draw: st.DrawFn) -> SlurmFacts:
    found = tuple(draw(st.lists(nodes, min_size=1, max_size=8)))
    partitions = {
        name: Partition(
            name,
            max_time_s=draw(st.none() | st.integers(1, 10**7)),
            max_nodes=draw(st.none() | st.integers(1, 5)),
            max_cpus_per_node=draw(st.none() | st.integers(1, 64)),
            max_memory_bytes=draw(st.none() | st.integers(2, 10**6).map(lambda mebibytes: mebibytes * 1024**2)),
            priority_tier=draw(st.integers(1, 3)),
            preempt_mode=draw(st.sampled_from(["OFF", "REQUEUE"])),
        )
        for name in sorted({name for one in found for name in one.partitions})
    }
    return recorded_facts(partitions=partitions, nodes=found)


@settings(max_examples=150)
@given(clusters(), st.data())
def test_whatever_the_profile_lets_through_the_cluster_has(facts: SlurmFacts, data: st.DataObject) -> None:
    """The profile's promise is kept: no request that passes it is impossible on the cluster it was made from."""
    cluster = discovered(facts)
    name = data.draw(st.sampled_from(sorted(cluster.partitions)))
    promise = cluster.partitions[name]
    asked = Resources.model_construct(
        partition=name,
        num_nodes=promise.nodes.num_nodes,
        gpus_per_node=data.draw(st.integers(1, max(1, promise.nodes.gpus))),
        gpu_type=data.draw(st.sampled_from([None, promise.nodes.gpu_type])) if cluster.gpu_request != "none" else None,
        memory=promise.nodes.memory,
        walltime=promise.max_walltime,
    )
    if not check_resources(asked, cluster):
        assert live_problems(asked, cluster, facts) == ()


@settings(max_examples=100)
@given(clusters())
def test_every_profile_reads_back_and_is_the_same_text_each_time(
    tmp_path_factory: pytest.TempPathFactory, facts: SlurmFacts
) -> None:
    found = profile_of(facts, name=None, slurm_conf=None)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(profile_text(found))
    assert read_profile(path) == found.cluster
    assert path.read_text() == profile_text(profile_of(facts, name=None, slurm_conf=None))


def test_discover_prints_the_profile_and_takes_a_name(tmp_path: Path) -> None:
    slurm = FakeSlurm.install(tmp_path / "slurm")
    slurm.answers(recorded_answers())
    env = {**slurm.environment, "SLURM_CONF": str(tmp_path / "slurm.conf")}
    (tmp_path / "slurm.conf").write_text("")
    done = orchestrate("cluster", "discover", "--name", "lab", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == RECORDED.replace("/etc/slurm", str(tmp_path))
    assert slurm.calls_of("sacctmgr") == []


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--name", "my site"), 2, "--name: 'my site' does not fit here"),
        ((), 3, "scontrol ping: no controller answers"),
    ],
)
def test_what_stands_in_the_way_of_a_profile_is_one_line(
    tmp_path: Path, words: tuple[str, ...], code: int, line: str
) -> None:
    slurm = FakeSlurm.install(tmp_path / "slurm")
    down = {"out": "Slurmctld(primary) at ctl is DOWN\n", "code": 1}
    slurm.answers(recorded_answers(**{"scontrol ping": down}))
    done = orchestrate("cluster", "discover", *words, cwd=tmp_path, env={**slurm.environment, "SLURM_CONF": __file__})
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (code, "", line)


def test_gpus_that_are_not_understood_are_not_promised_away() -> None:
    facts = recorded_facts(nodes=parse_nodes("NodeName=n1 CPUTot=8 Gres=gpu:tesla:2K Partitions=debug State=IDLE\n"))
    found = profile_of(facts, name="odd", slurm_conf=None)
    assert (found.cluster.accelerator, found.cluster.gpu_request) == ("cuda", "gpus-per-node")
    assert (
        "write gpus and gpu_type yourself: what Slurm says of those of n1 is not understood"
        in (found.notes["partitions.debug"])
    )


def test_without_slurm_discover_says_so_and_exits_3(tmp_path: Path) -> None:
    done = orchestrate("cluster", "discover", cwd=tmp_path, env={"PATH": "/nowhere", "SLURM_CONF": __file__})
    assert (done.returncode, done.stderr.splitlines()[0]) == (3, "scontrol: not found on PATH")
