"""What running out of memory taught one run, the next ones begin with: a GPU's profile, no GPU needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster import Cluster, NodeType, Partition
from orchestrator.documents import dump_yaml
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.job.limits import learn, limit_so_far
from orchestrator.job.verdict import OutOfMemory, Verdict
from orchestrator.plan.learnt import LearntLimit
from orchestrator.plan.plan import Plan
from orchestrator.recipe.memory_limit import VARIABLE
from orchestrator.recipe.read import ReadRecipe, read_recipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.learnt import learnt_for, store_file, tell_store
from orchestrator.submit.prepare import plan_for, prepare
from tests.support.command_line import TINY

NODES = NodeType(num_nodes=2, gpus=4, cpus=32, gpu_type="a100", gpu_memory="80G")
GPU = Partition(nodes=NODES, default=True)
SITE = Cluster(name="site", scheduler="local", accelerator="cuda", partitions={"gpu": GPU})
DEVICE = "cuda, a100, 80G"
DIGEST = "d" * 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose driver was told where to keep what it learns."""
    run = RunDir(make_private_dir(tmp_path / "run"))
    tell_store(run, read_recipe(TINY), SITE, code_digest=DIGEST)
    return run


def planned(learnt: LearntLimit | None = None, *overrides: str) -> Plan:
    return plan_for(read_recipe(TINY, overrides), SITE, code_digest=DIGEST, learnt=learnt)


def failed_at(micro_batch_size: int) -> Verdict:
    return Verdict("failed", "memory", out_of_memory=OutOfMemory(micro_batch_size))


def known(*overrides: str, cluster: Cluster = SITE, run_dir: RunDir | None = None) -> LearntLimit | None:
    read = read_recipe(TINY, overrides)
    return learnt_for(read, cluster, code_digest=DIGEST, overrides=overrides, run_dir=run_dir)


def test_a_limit_is_remembered_for_this_model_precision_and_gpu(run: RunDir) -> None:
    learn(run, planned(), failed_at(8), device=DEVICE)
    assert known() == LearntLimit(8, None, DEVICE)
    assert known("optimizer.lr=0.2", "batch.effective=32", "resources.gpus_per_node=4") == known()
    assert known("precision=fp32") is None and known("activation_checkpointing=true") is None
    assert known("model.args.width=17") is None
    larger = GPU.model_copy(update={"nodes": NODES.model_copy(update={"gpu_memory": "141G"})})
    assert known(cluster=SITE.model_copy(update={"partitions": {"gpu": larger}})) is None
    assert learnt_for(read_recipe(TINY), SITE, code_digest="e" * 64) is None


def test_the_next_plan_begins_with_it_unless_somebody_names_another(run: RunDir) -> None:
    learn(run, planned(), failed_at(8), device=DEVICE)
    plan = planned(known())
    assert plan.batch.micro_batch_size == 4
    learn(run, plan, Verdict("done", "trained"), device=DEVICE)
    assert known() == LearntLimit(8, 4, DEVICE)
    assert known("batch.micro=8") is None


def test_an_attempt_that_ends_well_above_the_limit_refutes_it(run: RunDir) -> None:
    learn(run, planned(), failed_at(8), device=DEVICE)
    learn(run, planned(None, "batch.micro=8"), Verdict("done", "trained"), device=DEVICE)
    assert known() is None and not run.learnt.exists()


def test_a_run_goes_by_its_own_attempts_first_and_by_none_of_another_device(run: RunDir) -> None:
    submitted = planned(LearntLimit(16, 8, DEVICE))
    assert limit_so_far(run, submitted, device=DEVICE) == submitted.learnt
    learn(run, submitted, failed_at(8), device=DEVICE)
    assert limit_so_far(run, submitted, device=DEVICE) == LearntLimit(8, None, DEVICE)
    assert known(run_dir=run) == LearntLimit(8, None, DEVICE)
    assert limit_so_far(run, submitted, device="cpu") is None
    run.learnt.write_text("torn")
    assert limit_so_far(run, submitted, device=DEVICE) == submitted.learnt


def test_nothing_is_remembered_of_a_failure_that_no_micro_batch_changes(run: RunDir) -> None:
    for verdict in (Verdict("failed", "a bug"), failed_at(8), Verdict("stopped", "saved")):
        learn(run, planned(), replace(verdict, out_of_memory=None), device=DEVICE)
    learn(run, planned(), Verdict("failed", "memory", out_of_memory=OutOfMemory()), device=DEVICE)
    assert known() is None and not run.learnt.exists()


def test_cpu_ranks_and_pretended_limits_leave_nothing_for_other_runs(tmp_path: Path) -> None:
    pretending = read_with(tmp_path, env={"variables": {VARIABLE: "8"}})
    on_cpu = SITE.model_copy(update={"accelerator": "cpu"})
    assert store_file(pretending, SITE, code_digest=DIGEST) is None
    assert store_file(read_recipe(TINY), on_cpu, code_digest=DIGEST) is None


def read_with(folder: Path, **changes: object) -> ReadRecipe:
    recipe = read_recipe(TINY).recipe.model_dump(mode="json", exclude_none=True)
    (folder / "recipe.yaml").write_text(dump_yaml({**recipe, **changes}))
    return read_recipe(folder / "recipe.yaml")


def test_a_session_teaches_other_runs_of_its_command_and_a_plain_command_none(tmp_path: Path) -> None:
    def store(*command: str, **changes: object) -> Path | None:
        kept = {"model": None, "loss": None, "metrics": {}, "validation": [], "command": list(command), **changes}
        return store_file(read_with(tmp_path, **kept), SITE, code_digest=DIGEST)

    steps = {"duration": {"steps": 2}, "schedule": {}}
    (tmp_path / "train.py").touch()
    small = store("train.py", "--width=8", "--lr=${plan.lr}")
    assert small is not None and small == store("train.py", "--width=8", "--lr=${plan.lr}", **steps)
    assert small != store("train.py", "--width=16", "--lr=${plan.lr}")
    assert store("train.py", datasets=[], **steps) is None


def test_a_store_that_cannot_be_written_ends_no_run(run: RunDir) -> None:
    write_json(run.learnt_store, {"file": "/proc/nowhere/learnt.json"})
    learn(run, planned(), failed_at(8), device=DEVICE)
    assert read_json(run.learnt) == {"failed": 8, "worked": None, "device": DEVICE}


def test_plan_reads_the_store_for_the_very_code_that_it_would_submit(tmp_path: Path) -> None:
    profile = tmp_path / "site.yaml"
    profile.write_text(dump_yaml(SITE.model_dump(mode="json", exclude_none=True)))

    def prepared(*overrides: str) -> Plan:
        return prepare(TINY, overrides=overrides, profile=profile, cwd=tmp_path).plan

    assert prepared().batch.largest_micro_batch is None
    snapshot = prepare(TINY, overrides=(), profile=profile, cwd=tmp_path).snapshot
    store = store_file(read_recipe(TINY), SITE, code_digest=snapshot.without(TINY.name))
    make_private_dir(store.parent)
    write_json(store, LearntLimit(8, None, DEVICE).as_json())
    assert prepared().batch.largest_micro_batch == 4
    assert prepared("batch.micro=8").batch.largest_micro_batch == 8
