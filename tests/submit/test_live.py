"""A recipe against the cluster as it is: what it refuses, what it only says later, and what it does not say at all."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import Cluster
from orchestrator.plan.resources import check_resources
from orchestrator.recipe.schema import Resources
from orchestrator.submit.live import LiveReport, StartEstimate, look, start_estimate, start_text, with_start
from orchestrator.submit.site.checks import live_problems
from orchestrator.submit.site.facts import SlurmFacts, parse_nodes
from tests.submit.site.slurm_answers import CONFIG, NODES, STARTS, recorded_answers, recorded_facts
from tests.support.command_line import RECIPES, orchestrate
from tests.support.fake_slurm import FakeSlurm

BOAST = """\
name: boast
scheduler: slurm
accelerator: cpu
slurm_cluster: dev
partitions:
  debug: {nodes: {num_nodes: 99, gpus: 99, cpus: 99, memory: "999G"}, default: true}
  small: {nodes: {num_nodes: 99, gpus: 99, cpus: 99, memory: "999G"}}
  gone: {nodes: {num_nodes: 99, gpus: 99, cpus: 99, memory: "999G"}}
"""
PROMISE = {"num_nodes": 99, "gpus": 4, "cpus": 8}
SITE = Cluster.model_validate(
    {
        "name": "boast",
        "scheduler": "slurm",
        "accelerator": "cpu",
        "slurm_cluster": "dev",
        "partitions": {
            "debug": {"nodes": PROMISE, "default": True},
            **{name: {"nodes": PROMISE} for name in ("small", "off", "inact", "four", "gone")},
        },
    }
)


def told(cluster: Cluster = SITE, *, facts: Any = None, **resources: Any) -> list[tuple[str, str, str]]:
    problems = live_problems(Resources(**resources), cluster, facts or recorded_facts())
    return [(problem.where.removeprefix("resources."), problem.what, problem.fix) for problem in problems]


def test_what_the_cluster_has_is_not_told() -> None:
    assert told(num_nodes=4, gpus_per_node=4, cpus_per_gpu=2, memory="5000M", walltime="12:00:00") == []
    assert told(num_nodes=2, gpus_per_node=4, gpu_type="a100", constraint="ib&a100", account="dev", qos="normal") == []


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ({"partition": "debugg"},
         ("partition", "the cluster 'dev' has no partition 'debugg'", "did you mean 'debug'?")),
        ({"walltime": "12:00:01"},
         ("walltime", "12:00:01 is longer than partition 'debug' allows (MaxTime)", 'write "12:00:00" or less')),
        ({"num_nodes": 9}, ("num_nodes", "9 nodes are more than the 4 in partition 'debug'", "write 4 or less")),
        ({"partition": "small", "num_nodes": 2, "cpus_per_gpu": 1},
         ("num_nodes", "2 nodes are more than a job in partition 'small' may have (MaxNodes)", "write 1 or less")),
        ({"gpus_per_node": 5, "cpus_per_gpu": 1},
         ("gpus_per_node", "5 GPUs per node are more than a node in partition 'debug' has",
          "write 4 or less, and more num_nodes")),
        ({"gpus_per_node": 3, "gpu_type": "v100"},
         ("gpus_per_node", "3 v100 GPUs per node are more than a node in partition 'debug' has",
          "write 2 or less: there are 2 GPUs in all")),
        ({"gpu_type": "h100"},
         ("gpu_type", "no node in partition 'debug' has a GPU of type 'h100'", "did you mean 'v100'?")),
        ({"gpu_type": "a100", "partition": "four"},
         ("gpu_type", "no node in partition 'four' has a GPU of type 'a100'",
          "take it away: Slurm knows no GPU types there; partition 'debug' has it")),
        ({"num_nodes": 4, "gpus_per_node": 4, "gpu_type": "a100"},
         ("num_nodes", "2 of the 4 nodes in partition 'debug' have all that is asked of a node",
          "write 2 or less, or ask less of each node")),
        ({"gpu_type": "v100", "constraint": "ib"},
         ("num_nodes", "0 of the 4 nodes in partition 'debug' have all that is asked of a node",
          "ask less of each node")),
        ({"memory": "7G"},
         ("memory", "7G per node is more than a job gets on a node in partition 'debug'", 'write "6000M" or less')),
        ({"memory": "4G", "partition": "small"},
         ("memory", "4G per node is more than a job gets on a node in partition 'small'", 'write "3000M" or less')),
        ({"cpus_per_gpu": 9},
         ("cpus_per_gpu", "9 CPU cores per node are more than a job gets on a node in partition 'debug'",
          "write 8 or less")),
        ({"cpus_per_gpu": 3, "gpus_per_node": 2, "partition": "small"},
         ("cpus_per_gpu", "6 CPU cores per node are more than a job gets on a node in partition 'small'",
          "write 2 or less")),
        ({"constraint": "ib&infiniband"},
         ("constraint", "no node in partition 'debug' has the feature 'infiniband'",
          "choose one of: a100, eth, ib")),
        ({"account": "devel"}, ("account", "you have no account 'devel' on the cluster 'dev'", "did you mean 'dev'?")),
        ({"account": "lab"},
         ("account", "the account 'lab' may not use partition 'debug'",
          "choose another account, or another partition")),
        ({"account": "dev", "partition": "small"},
         ("account", "the account 'dev' may not use partition 'small'", "choose one of: other")),
        ({"qos": "hihg"},
         ("qos", "the cluster 'dev' has no quality of service 'hihg'", "did you mean 'high'?")),
        ({"qos": "high", "partition": "small"},
         ("qos", "partition 'small' does not take the quality of service 'high'", "choose one of: normal")),
        ({"partition": "off"},
         ("partition", "partition 'off' starts no jobs: its state is DOWN",
          "choose one of: debug, preempt, small; or wait for it, or add --offline to queue for it")),
        ({"partition": "inact"},
         ("partition", "partition 'inact' takes no jobs: its state is INACTIVE",
          "choose one of: debug, preempt, small; or wait for it")),
    ],
)  # fmt: skip
def test_what_the_cluster_cannot_give_is_told_at_its_key(
    resources: dict[str, Any], problem: tuple[str, str, str]
) -> None:
    assert problem in told(**resources)


def test_each_wish_is_told_by_itself_and_all_at_once() -> None:
    keys = [where for where, _, _ in told(num_nodes=9, gpus_per_node=5, memory="9G", qos="x", account="y")]
    assert keys == ["num_nodes", "gpus_per_node", "memory", "account", "qos"]


def test_a_partition_that_only_the_profile_names_is_told_as_the_profiles() -> None:
    default = {"default": {"nodes": PROMISE, "default": True}}
    site = Cluster.model_validate(SITE.model_dump() | {"partitions": default})
    assert told(site)[0][1] == "the cluster 'dev' has no partition 'default', which the profile names as its default"


def test_nodes_that_are_down_now_are_waited_for() -> None:
    """Two of the four recorded nodes are drained or down; a job for four of them may be queued all the same."""
    assert told(num_nodes=4, gpus_per_node=1) == []
    assert told(partition="four") == []


@pytest.mark.parametrize("state", ["IDLE+DRAIN", "IDLE*", "DOWN+CLOUD+POWERED_DOWN+REBOOT_ISSUED"])
def test_a_partition_whose_nodes_are_all_out_of_service_now_is_waited_for(state: str) -> None:
    nodes = parse_nodes(re.sub(r"State=\S+", f"State={state}", NODES))
    assert all(node.down for node in nodes)
    assert told(facts=recorded_facts(nodes=nodes), num_nodes=4) == []


def test_what_accounting_does_not_decide_is_not_told() -> None:
    facts = recorded_facts(associations=None, qos=None)
    assert told(facts=facts, account="anything", qos="whatever") == []


def test_a_quality_of_service_of_another_account_is_refused_where_it_is_enforced() -> None:
    facts = recorded_facts()
    assert told(facts=facts, account="dev", qos="high") == []
    strict = replace(facts, config=replace(facts.config, enforce=frozenset({"associations", "qos"})))
    ((where, what, fix),) = told(facts=strict, account="dev", qos="high")
    assert (where, what) == ("qos", "your account may not use the quality of service 'high'")
    assert fix == "choose one of: normal"


@pytest.mark.parametrize(
    ("flag", "partition", "resources", "key"),
    [
        ("PartitionTimeLimit", "debug", {"walltime": "48:00:00"}, "walltime"),
        ("PartitionMaxNodes", "small", {"num_nodes": 2, "cpus_per_gpu": 1}, "num_nodes"),
    ],
)
def test_a_quality_of_service_may_lift_the_partitions_limits(
    flag: str, partition: str, resources: dict[str, Any], key: str
) -> None:
    facts = recorded_facts(qos={"normal": frozenset({"DenyOnLimit"}), "high": frozenset({flag})}, associations=None)

    def keys(facts: SlurmFacts, **more: str) -> list[str]:
        return [where for where, _, _ in told(facts=facts, partition=partition, **resources, **more) if where == key]

    assert keys(facts) == keys(facts, qos="normal") == [key]
    assert keys(facts, qos="high") == []
    assert keys(replace(facts, qos=None), qos="high") == [], "what accounting did not say is unknown, not wrong"


def test_gpus_that_are_not_understood_are_unknown_and_not_none() -> None:
    nodes = parse_nodes(NODES.replace("Gres=gpu:a100:4", "Gres=gpu:a100:4K"))
    assert [node.gpus for node in nodes].count(None) == 2
    assert told(facts=recorded_facts(nodes=nodes), num_nodes=2, gpus_per_node=7, cpus_per_gpu=1) == []
    assert told(facts=recorded_facts(nodes=nodes), gpu_type="h100") == []


def test_a_gpu_type_in_capitals_is_the_one_in_small_letters() -> None:
    ((_, _, fix),) = told(gpu_type="A100")
    assert fix == "did you mean 'a100'?"


def test_a_list_of_partitions_is_refused_with_the_ways_to_choose_one() -> None:
    (problem,) = check_resources(Resources(partition="debug,small"), SITE)
    assert (problem.where, problem.what) == ("resources.partition", "'debug,small' is a list, and a plan is for one")
    assert problem.fix == "name one; `submit --soonest` takes the one that starts first"


def test_an_account_may_be_written_in_capitals_as_slurm_takes_it() -> None:
    assert told(account="DEV", qos="normal") == []


def test_nodes_that_slurm_does_not_show_are_not_counted() -> None:
    assert told(facts=recorded_facts(nodes=()), num_nodes=50, gpus_per_node=50, cpus_per_gpu=1) == []


@pytest.mark.parametrize("constraint", ["ib*2&eth*1", "ib&a100|eth", "[ib|eth]", "(ib|eth)&a100"])
def test_a_constraint_that_only_slurm_can_weigh_is_left_to_it(constraint: str) -> None:
    assert told(constraint=constraint, num_nodes=4) == []


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (timedelta(seconds=-3), "at once (Slurm's estimate)"),
        (timedelta(seconds=59), "at once (Slurm's estimate)"),
        (timedelta(minutes=5), "about 14:05 (Slurm's estimate)"),
        (timedelta(days=1), "about Wed 25 Nov 14:00 (Slurm's estimate)"),
        (timedelta(days=365), "about Wed 24 Nov 2027 14:00 (Slurm's estimate)"),
    ],
)
def test_a_start_is_told_as_people_tell_time(wait: timedelta, text: str) -> None:
    now = datetime(2026, 11, 24, 14, 0)
    assert start_text(now + wait, now=now) == text


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    fake = FakeSlurm.install(tmp_path / "slurm")
    fake.answers(recorded_answers())
    monkeypatch.setenv("PATH", fake.environment["PATH"])
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return fake


def test_one_look_asks_each_question_once(slurm: FakeSlurm) -> None:
    report = look(SITE)
    assert (report.facts, report.unchecked) == (recorded_facts(), ())
    asked = sorted(" ".join((call["program"], *call["argv"][:3])) for call in slurm.calls)
    assert asked == [
        "sacctmgr -nP show assoc",
        "sacctmgr -nP show qos",
        "scontrol --all --oneliner show",
        "scontrol --all --oneliner show",
        "scontrol ping",
        "scontrol show config",
    ]


def test_without_associations_in_force_accounting_is_not_asked(slurm: FakeSlurm) -> None:
    config = CONFIG.replace("associations,limits", "none")
    slurm.answers(recorded_answers(**{"scontrol config": {"out": config}}))
    facts = look(SITE).facts
    assert facts is not None and (facts.associations, facts.qos) == (None, None)
    assert slurm.calls_of("sacctmgr") == []


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"scontrol ping": {"out": "Slurmctld(primary) at ctl is DOWN\n", "code": 1}},
         "scontrol ping: no controller answers"),
        ({"scontrol ping": {"err": "scontrol: fatal: Could not establish a configuration source\n", "code": 1}},
         "scontrol ping: Could not establish a configuration source"),
        ({"scontrol config": {"err": "slurm_load_ctl_conf error: Unable to contact slurm controller\n", "code": 1}},
         "scontrol: Unable to contact slurm controller"),
        ({"scontrol config": {"out": "what?\n"}}, "scontrol: scontrol show config does not name a cluster"),
        ({"scontrol config": {"out": "ClusterName = other\n"}},
         "the Slurm here is 'other', the profile is for 'dev'"),
    ],
)  # fmt: skip
def test_a_slurm_that_cannot_be_asked_is_unknown_with_the_reason(
    slurm: FakeSlurm, answers: dict[str, dict[str, Any]], why: str
) -> None:
    slurm.answers(recorded_answers(**answers))
    report = look(SITE)
    assert report.facts is None
    assert [(one.what, one.why) for one in report.unchecked] == [("account, qos, live limits", why)]
    assert with_start(report, "#!/bin/bash\n", Resources(), SITE) is report
    assert slurm.calls_of("sbatch") == []


def test_accounting_that_does_not_answer_leaves_account_and_qos_unchecked_alone(slurm: FakeSlurm) -> None:
    silent = {"err": "sacctmgr: error: slurm_persist_conn_open: Unable to contact slurmdbd\n", "code": 1}
    slurm.answers(recorded_answers(**{"sacctmgr qos": silent}))
    report = look(SITE)
    assert report.facts is not None and report.facts.associations is None and report.facts.nodes
    ((what, why),) = [(one.what, one.why) for one in report.unchecked]
    assert what == "account, qos" and why.startswith("sacctmgr: ") and "Unable to contact slurmdbd" in why


@pytest.mark.parametrize(
    ("answers", "unchecked"),
    [
        ({"scontrol node": {"out": ""}},
         ("nodes, GPUs, CPU cores, memory, constraint", "Slurm shows no nodes in 'debug'")),
        ({"scontrol partition": {"out": ""}}, ("partition, its limits and nodes", "Slurm shows no partitions")),
        ({"scontrol node": {"out": NODES.replace("Gres=gpu:a100:4", "Gres=gpu:a100:4K")}},
         ("GPUs", "what Slurm says of those of node1, node2 is not understood (Gres)")),
    ],
    ids=["private nodes", "private partitions", "strange gres"],
)  # fmt: skip
def test_what_slurm_does_not_show_is_told_as_unchecked(
    slurm: FakeSlurm, work: Path, answers: dict[str, dict[str, Any]], unchecked: tuple[str, str]
) -> None:
    slurm.answers(recorded_answers(**answers))
    done = orchestrate("plan", recipe(work, "{num_nodes: 2}"), "--cluster", "boast.yaml", cwd=work)
    assert (done.returncode, done.stderr) == (0, "")
    what, why = unchecked
    assert done.stdout.splitlines()[-1].startswith(f"unchecked  {what}: {why}")


def test_a_missing_slurm_conf_is_unknown_at_once_where_slurm_would_wait_a_minute(slurm: FakeSlurm) -> None:
    report = look(SITE.model_copy(update={"slurm_conf": "/nowhere/slurm.conf"}))
    assert [one.why for one in report.unchecked] == ["/nowhere/slurm.conf: no such file: slurm.conf"]
    assert slurm.calls == []


def test_a_controller_that_hangs_is_unknown_after_five_seconds_in_all(slurm: FakeSlurm) -> None:
    (slurm.room / "bin" / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    started = time.monotonic()
    (one,) = look(SITE).unchecked
    assert time.monotonic() - started < 20
    assert one.why == "scontrol: no answer within 5 s"


@pytest.mark.parametrize(
    ("answer", "text", "key"),
    [
        ({"err": STARTS}, "at once (Slurm's estimate)", None),
        ({"err": "sbatch: something else\n"}, "no estimate from Slurm", None),
        ({"err": "sbatch: Job 41 to start at 2036-13-44T19:01:53\n"}, "no estimate from Slurm", None),
        ({"err": "allocation failure: Unable to contact slurm controller (connect failure)\n", "code": 1},
         "no estimate: Unable to contact slurm controller (connect failure)", None),
        ({"err": "allocation failure: Requested nodes are busy\n", "code": 1},
         "no estimate: Requested nodes are busy", None),
        ({"err": "sbatch: error: invalid partition specified: nope\n"
          "allocation failure: Invalid partition name specified\n", "code": 1},
         "sbatch refused: invalid partition specified: nope; Invalid partition name specified", "resources.partition"),
        ({"err": "allocation failure: Requested time limit is invalid (missing or exceeds some limit)\n", "code": 1},
         "sbatch refused: Requested time limit is invalid (missing or exceeds some limit)", "resources.walltime"),
    ],
)  # fmt: skip
def test_slurms_own_verdict_on_the_very_script(
    slurm: FakeSlurm, answer: dict[str, Any], text: str, key: str | None
) -> None:
    slurm.answers({"sbatch --test-only": answer})
    estimate = start_estimate("#!/bin/bash\n#SBATCH --nodes=1\nexec true\n", SITE)
    assert (estimate.text, estimate.refused.where if estimate.refused else None) == (text, key)
    assert slurm.tested == "#!/bin/bash\n#SBATCH --nodes=1\nexec true\n"
    assert (estimate.start == datetime(2026, 11, 24, 19, 1, 53)) == (answer["err"] == STARTS)


def test_estimates_may_be_asked_for_from_several_threads(slurm: FakeSlurm) -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda number: start_estimate(f"#!/bin/bash\n# {number}\n", SITE), range(8)))
    assert {estimate.start for estimate in found} == {datetime(2026, 11, 24, 19, 1, 53)}
    assert len(slurm.calls_of("sbatch")) == 8


def test_slurms_no_to_nodes_that_are_down_now_is_no_refusal(slurm: FakeSlurm) -> None:
    """`sbatch --test-only` finds no node configuration while nodes are drained; sbatch itself would queue the job."""
    no = {"err": "allocation failure: Requested node configuration is not available\n", "code": 1}
    slurm.answers({"sbatch --test-only": no})
    report = LiveReport(recorded_facts())
    waiting = with_start(report, "#!/bin/bash\n", Resources(num_nodes=4), SITE).start
    assert waiting == StartEstimate(None, "no estimate: only 2 of the 4 nodes that fit are in service and not reserved")
    refused = with_start(report, "#!/bin/bash\n", Resources(num_nodes=2), SITE).start
    assert refused is not None and refused.refused is not None and refused.refused.where == "resources"
    assert refused.refused.fix == "ask for what exists: see `sinfo`; or add --offline to submit it all the same"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("model.py", "data.py"):
        (folder / name).write_bytes((RECIPES / name).read_bytes())
    (folder / "boast.yaml").write_text(BOAST)
    return folder


def recipe(work: Path, resources: str) -> str:
    (work / "recipe.yaml").write_text((RECIPES / "tiny.yaml").read_text() + f"resources: {resources}\n")
    return "recipe.yaml"


def test_the_plan_says_when_it_would_start_and_json_has_it(slurm: FakeSlurm, work: Path) -> None:
    words = ("plan", recipe(work, "{partition: debug}"), "--cluster", "boast.yaml")
    done = orchestrate(*words, cwd=work)
    assert done.returncode == 0, done.stderr
    assert "\nstart      at once (Slurm's estimate)\n" in done.stdout and "unchecked" not in done.stdout
    shown = json.loads(orchestrate(*words, "--json", cwd=work).stdout)
    assert shown["script"] == slurm.tested
    assert shown["live"]["start"]["at"].startswith("2026-11-24T19:01:53")
    assert shown["live"]["unchecked"] == []


def test_offline_asks_nothing_and_says_nothing_of_it(slurm: FakeSlurm, work: Path) -> None:
    done = orchestrate("plan", recipe(work, "{num_nodes: 8}"), "--cluster", "boast.yaml", "--offline", cwd=work)
    assert done.returncode == 0, done.stderr
    assert slurm.calls == [] and "start " not in done.stdout and "unchecked" not in done.stdout


def test_without_a_slurm_on_path_the_plan_goes_on_by_the_profile_and_says_what_is_unchecked(work: Path) -> None:
    words = ("plan", recipe(work, "{num_nodes: 8}"), "--cluster", "boast.yaml")
    done = orchestrate(*words, cwd=work, env={"PATH": "/nowhere"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "unchecked  account, qos, live limits: scontrol: not found on PATH"


@pytest.mark.parametrize("verb", ["plan", "submit"])
def test_the_clusters_problems_stand_beside_the_recipes_own_in_one_go(slurm: FakeSlurm, work: Path, verb: str) -> None:
    path = recipe(work, "\n  num_nodes: 8\n  account: nobodys\n  partition: gone\n  wall: 1")
    done = orchestrate(verb, path, "--cluster", "boast.yaml", cwd=work)
    assert done.returncode == 2
    places = [line for line in done.stderr.splitlines() if line.startswith("recipe.yaml:")]
    lines = (work / "recipe.yaml").read_text().splitlines()
    first = lines.index("  num_nodes: 8") + 1
    assert [place.partition(": ")[0] for place in places] == [
        f"recipe.yaml:{first + 1}:3 resources.account",
        f"recipe.yaml:{first + 2}:3 resources.partition",
        f"recipe.yaml:{first + 3}:3 resources.wall",
    ]
    assert slurm.calls_of("sbatch") == [] and not (work / "runs").exists()


def test_a_key_with_which_the_profile_finds_fault_is_told_once(slurm: FakeSlurm, work: Path) -> None:
    done = orchestrate("plan", recipe(work, "{num_nodes: 100}"), "--cluster", "boast.yaml", cwd=work)
    assert done.stderr.count("resources.num_nodes") == 1 and "the 99 in partition" in done.stderr


@pytest.mark.parametrize("verb", ["plan", "submit"])
def test_a_script_that_slurm_itself_refuses_is_told_at_its_key_before_sbatch(
    slurm: FakeSlurm, work: Path, verb: str
) -> None:
    no = {"err": "allocation failure: Job violates accounting/QOS policy (job submit limit)\n", "code": 1}
    slurm.answers(recorded_answers(**{"sbatch --test-only": no}))
    done = orchestrate(verb, recipe(work, "{account: dev}"), "--cluster", "boast.yaml", cwd=work)
    assert done.returncode == 2
    line = len((work / "recipe.yaml").read_text().splitlines())
    assert f"recipe.yaml:{line}:1 resources: sbatch refused: Job violates accounting/QOS policy" in done.stderr
    assert [argv for argv in slurm.calls_of("sbatch") if argv != ["--test-only"]] == []
    assert not (work / "runs").exists()


def test_a_refusal_at_the_real_submission_is_placed_in_the_recipe_too(slurm: FakeSlurm, work: Path) -> None:
    slurm.answers(recorded_answers(sbatch={"err": "sbatch: error: Invalid qos specification\n", "code": 1}))
    done = orchestrate("submit", recipe(work, "{qos: normal}"), "--cluster", "boast.yaml", cwd=work)
    assert done.returncode == 3
    line = len((work / "recipe.yaml").read_text().splitlines())
    assert f"recipe.yaml:{line}:13 resources.qos: sbatch refused: Invalid qos specification" in done.stderr


def test_resume_asks_the_cluster_before_it_writes(slurm: FakeSlurm, work: Path) -> None:
    prepared = orchestrate("submit", recipe(work, "{}"), "--cluster", "boast.yaml", "--prepare", "--json", cwd=work)
    assert prepared.returncode == 0, prepared.stderr
    run_dir = Path(json.loads(prepared.stdout)["run_dir"])
    before = (run_dir / "job.sh").read_bytes()
    done = orchestrate("resume", run_dir, "--set", "resources.num_nodes=8", cwd=work)
    assert done.returncode == 2
    assert "--set resources.num_nodes=8: 8 nodes are more than the 4 in partition 'debug'" in done.stderr
    assert (run_dir / "job.sh").read_bytes() == before
    assert [argv for argv in slurm.calls_of("sbatch") if argv != ["--test-only"]] == []
