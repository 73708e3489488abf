"""`orchestrate fit` from recipe to table: the process that simulates, how it fails, its cache; `micro: auto`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.render.fit import fit_facts, fit_screen
from orchestrator.cluster import LOCAL, Allocation, Cluster, NodeType, Partition
from orchestrator.documents import dump_yaml
from orchestrator.errors import RecipeError
from orchestrator.files import read_json
from orchestrator.plan.fit import FitReport
from orchestrator.plan.plan import make_plan
from orchestrator.recipe.read import ReadRecipe, read_recipe
from orchestrator.submit.commands import watch_command
from orchestrator.submit.fit import fit, memory_for, memory_of_rank
from orchestrator.submit.fit_cache import Found, remembered
from orchestrator.submit.snapshot import take_snapshot
from orchestrator.units import GIB
from tests.support.command_line import orchestrate
from tests.support.tracked import metric_rows
from tests.support.waiting import is_alive, wait_for
from tests.worker.fit.test_fit import GPT
from tests.worker.test_recompute import BLOCKS, MODELS

AUTO = {**BLOCKS, "precision": "fp32", "batch": {"effective": 24, "micro": "auto"}, "duration": {"steps": 2}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder with the models, and an empty cache elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code = tmp_path / "code"
    code.mkdir()
    for file in MODELS.glob("*.py"):
        (code / file.name).write_bytes(file.read_bytes())
    return code


def written(folder: Path, **changes: Any) -> ReadRecipe:
    (folder / "recipe.yaml").write_text(dump_yaml({**AUTO, **changes}))
    return read_recipe(folder / "recipe.yaml")


def fitted(read: ReadRecipe, *, gpu_gib: float = 8) -> tuple[FitReport, list[str]]:
    """The report on all modes, and what was said meanwhile."""
    said: list[str] = []
    digest = take_snapshot(read.folder).without("recipe.yaml")
    gpu_bytes = int(gpu_gib * GIB)
    report = fit(read, LOCAL, code_digest=digest, recompute=(False, True), gpu_bytes=gpu_bytes, say=said.append)
    return report, said


def points_said(said: list[str]) -> list[str]:
    return [line for line in said if "micro-batch" in line]


def test_a_fit_tries_both_sides_of_its_answer_and_is_remembered_for_every_gpu(folder: Path) -> None:
    """Of 1.7 GiB about 80 MiB are left for tensors: the largest micro-batch lies far inside the batch."""
    parts = {key: GPT[key] for key in ("model", "loss", "datasets")}
    read = written(folder, **parts, batch={"effective": 10_000}, validation=[])
    report, said = fitted(read, gpu_gib=1.7)
    assert report.method == "simulated" and report.cpu_s > 0
    assert [(row.recompute, row.accumulating) for row in report.rows] == [
        (False, False), (False, True), (True, False), (True, True),
    ]  # fmt: skip
    for row in report.rows:
        assert row.verified and 0 < row.largest_micro_batch < 1_000
        assert row.curve.peak_bytes(row.largest_micro_batch) <= report.budget.tensor_bytes
        assert row.curve.peak_bytes(row.largest_micro_batch + 1) > report.budget.tensor_bytes
    assert len(points_said(said)) == sum(len(row.curve.points) for row in report.rows)
    again, silence = fitted(read, gpu_gib=1.7)
    assert (again.rows, again.cpu_s, silence) == (report.rows, 0, [])
    _, said_for_other = fitted(read, gpu_gib=1.75)
    assert 0 < len(points_said(said_for_other)) < len(points_said(said))


def test_changed_code_is_simulated_again(folder: Path) -> None:
    read = written(folder)
    assert fitted(read)[1] and not fitted(read)[1]
    with (folder / "blocks.py").open("a") as file:
        file.write("\n")
    assert fitted(read)[1]


def test_a_module_from_elsewhere_that_changed_is_simulated_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "sizes.py").write_text("WIDTH = 20\n")
    monkeypatch.setenv("PYTHONPATH", str(shared))
    (folder / "outer.py").write_text(
        "import sizes, blocks\ndef build(): return blocks.Blocks(num_experts=sizes.WIDTH)\n"
    )
    read = written(folder, model={"target": "outer:build"})
    first, said = fitted(read)
    assert points_said(said) and not fitted(read)[1]
    (shared / "sizes.py").write_text("WIDTH = 40\n")
    second, said = fitted(read)
    assert points_said(said) and second.rows[0].curve.step_bytes > first.rows[0].curve.step_bytes
    (shared / "sizes.py").unlink()
    with pytest.raises(RecipeError, match="No module named 'sizes'"):
        fitted(read)


def test_a_variable_that_the_model_reads_is_part_of_what_is_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import os, blocks\ndef build(): return blocks.Blocks(num_experts=int(os.environ.get('EXPERTS', 2)))\n"
    (folder / "outer.py").write_text(text)
    read = written(folder, model={"target": "outer:build"})
    assert fitted(read)[1] and not fitted(read)[1]
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    assert not fitted(read)[1]
    monkeypatch.setenv("EXPERTS", "30")
    assert points_said(fitted(read)[1]) and not fitted(read)[1]


def test_a_longer_walltime_is_no_reason_to_simulate_again_and_another_precision_is(folder: Path) -> None:
    assert fitted(written(folder))[1]
    assert not fitted(written(folder, resources={"walltime": "1:00:00"}))[1]
    assert fitted(written(folder, precision="bf16"))[1]


@pytest.mark.parametrize("text", ["", "garbage", "[]", "7", '{"points": 3}', '{"sizes": {}, "points": [{}]}', "folder"])
def test_a_bad_file_in_the_cache_is_as_good_as_none(folder: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "cache.json"
    if text == "folder":
        file.mkdir()
    else:
        file.write_text(text)
    assert remembered(file, {}) == Found()


def test_what_is_remembered_of_wrong_numbers_is_as_good_as_none(folder: Path, tmp_path: Path) -> None:
    fitted(written(folder))
    (file,) = (tmp_path / "cache").glob("orchestrate/fit/*.json")
    answer = read_json(file)
    assert remembered(file, {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}).points
    for changed in ({"step_bytes": "many"}, {"sizes": None}, {"points": [{**answer["points"][0], "num_bytes": "1"}]}):
        file.write_text(json.dumps({**answer, **changed}))
        assert remembered(file, dict(os.environ)) == Found()


def test_a_cache_that_cannot_be_written_costs_a_line_and_not_the_answer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    report, said = fitted(written(folder))
    assert report.method == "simulated"
    assert said[-1].startswith("fit: not remembered: ") and "Not a directory" in said[-1]


def test_data_that_decides_what_is_computed_falls_back_to_arithmetic_and_says_so(folder: Path) -> None:
    report, _ = fitted(written(folder, model={"target": "blocks:Branching"}))
    assert report.method == "arithmetic"
    assert report.why.startswith("blocks.py:") and "_local_scalar_dense" in report.why
    assert report.budget.margin_bytes == pytest.approx(0.2 * 8 * GIB)
    assert [(row.recompute, row.largest_micro_batch) for row in report.rows] == [(False, 24), (False, 24)]
    screen = fit_screen(report)
    assert "method      arithmetic" in screen and report.why in screen
    json.dumps(fit_facts(report))


def test_a_model_that_takes_its_process_along_falls_back_to_arithmetic(folder: Path) -> None:
    report, _ = fitted(written(folder, model={"target": "blocks:Aborting"}))
    assert report.method == "arithmetic" and "signal 6" in report.why
    assert report.memory_plan(recompute=False).why == report.why


def test_a_batch_norm_that_refuses_one_sample_leaves_every_gpu_its_simulation(folder: Path) -> None:
    """Two samples do not fit the small GPU, and what was found for it stays true of larger ones."""
    read = written(folder, model={"target": "blocks:Normed"}, batch={"effective": 64, "micro": "auto"})
    small, _ = fitted(read, gpu_gib=1.9)
    assert small.method == "simulated" and [row.largest_micro_batch for row in small.rows[:2]] == [0, 0]
    assert small.alone.startswith("blocks.py:") and "more than 1 value per channel" in small.alone
    assert f"least       2 samples: {small.alone}" in fit_screen(small)
    larger, _ = fitted(read, gpu_gib=4)
    assert larger.method == "simulated" and all(row.verified for row in larger.rows)
    assert 0 < larger.rows[0].largest_micro_batch < 64
    with pytest.raises(RecipeError, match=r"not even 2 samples fit a GPU of 1\.9 GiB"):
        make_plan(read.recipe, LOCAL, Allocation(1, 1), memory=small.memory_plan(recompute=False))


def test_a_batch_of_two_samples_is_simulated_where_one_is_refused(folder: Path) -> None:
    read = written(folder, model={"target": "blocks:Normed"}, batch={"effective": 2})
    report, _ = fitted(read, gpu_gib=8)
    assert report.method == "simulated" and all(row.largest_micro_batch == 2 for row in report.rows)
    alone, _ = fitted(written(folder, model={"target": "blocks:Normed"}, batch={"effective": 1}))
    assert alone.method == "arithmetic" and "more than 1 value per channel" in alone.why + alone.alone


def test_arithmetic_never_allows_what_a_simulation_has_refused(folder: Path) -> None:
    """It breaks at 9 samples, after 16 did not fit; first-order arithmetic alone would take all 24."""
    model = {"target": "blocks:Normed", "args": {"broken_at": 9}}
    read = written(folder, model=model, batch={"effective": 24})
    report, _ = fitted(read, gpu_gib=4)
    assert report.method == "arithmetic" and "broken" in report.why
    assert [row.largest_micro_batch for row in report.rows] == [15, 15]
    smaller, _ = fitted(read, gpu_gib=2.2)
    assert smaller.method == "simulated", "what broke at 9 samples says nothing of a GPU that never asks for 9"


def test_blocks_that_cannot_be_recomputed_leave_the_other_rows(folder: Path) -> None:
    for target, why in (("blocks:Refusing", "no recomputing here"), ("blocks:without_blocks", "no blocks")):
        report, _ = fitted(written(folder, model={"target": target}))
        assert report.method == "simulated" and why in report.without_recompute
        assert [row.recompute for row in report.rows] == [False, False]
        assert why in fit_screen(report)


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"model": {"target": "blocks:Blocks", "args": {"size": 3}}}, "model", "unexpected keyword argument 'size'"),
        ({"datasets": [{**BLOCKS["datasets"][0], "num_samples": 27}]}, "datasets.0.num_samples", "has 26 samples"),
        ({"model": {"target": "blocks:killed_while_made"}}, "model.target", "signal 6"),
        ({"model": {"target": "blocks:without_blocks"}, "activation_checkpointing": True},
         "activation_checkpointing", "no blocks"),
    ],
    ids=["constructor", "size", "abort", "no blocks"],
)  # fmt: skip
def test_mistakes_in_the_users_files_are_one_line_at_their_key(
    folder: Path, changes: dict[str, Any], where: str, what: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        fitted(written(folder, **changes))
    (problem,) = caught.value.problems
    assert problem.where.startswith(f"{folder / 'recipe.yaml'}:") and f" {where}" in problem.where
    assert what in problem.what and "\n" not in problem.what


@pytest.mark.parametrize("kept", ["name batch optimizer duration", "name batch optimizer duration datasets"])
def test_the_memory_of_a_command_cannot_be_predicted_with_a_session_or_without(folder: Path, kept: str) -> None:
    (folder / "train.py").write_text("")
    recipe = {**{key: AUTO[key] for key in kept.split()}, "command": ["train.py"]}
    (folder / "recipe.yaml").write_text(dump_yaml(recipe))
    with pytest.raises(RecipeError, match=r"batch\.micro: the memory of a command cannot be predicted"):
        fitted(read_recipe(folder / "recipe.yaml"))


def site(**nodes: Any) -> Cluster:
    partition = Partition(nodes=NodeType(num_nodes=1, cpus=8, **nodes), default=True)
    return Cluster(name="site", scheduler="slurm", accelerator="cuda", partitions={"gpu": partition})


def test_the_memory_of_a_rank_is_the_gpus_or_a_share_of_the_nodes(folder: Path) -> None:
    read = written(folder, resources={"gpus_per_node": 2})
    assert memory_of_rank(read, site(gpu_memory="80G")) == ("cuda", 80 * GIB)
    on_cpus = site(memory="64G").model_copy(update={"accelerator": "cpu"})
    assert memory_of_rank(read, on_cpus) == ("cpu", 32 * GIB)
    asked = written(folder, resources={"gpus_per_node": 2, "memory": "10G"})
    assert memory_of_rank(asked, on_cpus) == ("cpu", 5 * GIB)
    assert memory_of_rank(read, on_cpus.model_copy(update={"partitions": {}}))[1] > 0


def test_a_gpu_of_unknown_memory_is_refused_with_what_to_write(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"batch\.micro: the memory of a GPU is not known") as caught:
        memory_for(written(folder), site(), code_digest="0", say=print)
    assert 'gpu_memory: "80G" below partitions.gpu.nodes' in str(caught.value)


def test_a_program_that_takes_too_long_is_ended_with_all_it_started() -> None:
    lines: list[str] = []
    began = time.monotonic()
    words = ("sh", "-c", "echo one >&2; sleep 600 & sleep 600")
    assert watch_command(words, timeout_s=2, env={}, on_line=lines.append) is None
    assert lines == ["one"] and time.monotonic() - began < 300
    assert watch_command((sys.executable, "-c", "exit(3)"), timeout_s=60, env={}, on_line=lines.append) == 3


def test_a_simulation_that_hangs_is_ended_and_says_meanwhile_that_it_is_at_it(folder: Path) -> None:
    read = written(folder, model={"target": "blocks:hanging"})
    said: list[str] = []
    with pytest.raises(RecipeError, match=r"model\.target: .*cannot be made on this machine: it took longer than 3 s"):
        fit(read, LOCAL, code_digest="0", recompute=(False,), gpu_bytes=GIB, say=said.append, timeout_s=3)
    assert any(line.startswith("fit: at it for ") and line.endswith(" s, at most 3 s") for line in said)


def test_a_fit_that_is_told_to_end_takes_its_simulation_along(folder: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    written(folder, model={"target": "blocks:hanging", "args": {"pid_file": str(pid_file)}})
    words = [sys.executable, "-m", "orchestrator.cli.__main__", "fit", "recipe.yaml", "--gpu", "8GB"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: pid_file.exists() and pid_file.read_text() != "", timeout_s=120)
        finally:
            process.terminate()
    wait_for(lambda: not is_alive(int(pid_file.read_text())), timeout_s=60)


def test_the_verb_prints_a_table_and_where_its_numbers_come_from(folder: Path) -> None:
    written(folder)
    done = orchestrate("fit", "recipe.yaml", "--gpu", "8GB", cwd=folder)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()[:5]
    assert head.split("  ")[0] == "RECOMPUTE"
    assert [row.split()[:2] for row in rows] == [["off", "1"], ["off", ">"], ["on", "1"], ["on", ">"]]
    assert all("24 (the whole batch)" in row for row in rows)
    for words in ("8.00 GiB  GPU", "margin of 6%", "CUDA context", "NCCL", "left for tensors", "method", "CPU-seconds"):
        assert words in done.stdout
    assert all(line.startswith("fit: ") for line in done.stderr.splitlines())
    facts = json.loads(orchestrate("fit", "recipe.yaml", "--gpu", "8GB", "--json", cwd=folder).stdout)
    assert facts["method"] == "simulated" and len(facts["rows"]) == 4
    assert facts["budget"]["gpu_bytes"] - facts["tensor_bytes"] == facts["budget"]["margin_bytes"] + sum(
        allowance["num_bytes"] for allowance in facts["budget"]["allowances"]
    )


def test_a_size_without_a_unit_is_refused(folder: Path) -> None:
    written(folder)
    done = orchestrate("fit", "recipe.yaml", "--gpu", "80", cwd=folder)
    assert done.returncode == 2 and "write a number and a unit" in done.stderr


def test_a_run_with_micro_auto_trains_by_the_prediction_and_shows_both_peaks_in_mlflow(folder: Path) -> None:
    """The prediction made at submission is in plan.json, in the plan of the attempt, and beside the observed peak."""
    written(folder, validation=[])
    done = orchestrate("submit", "recipe.yaml", "--wait", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "largest micro-batch that fits: 24 (predicted)" in done.stderr
    (run,) = (folder / "runs").iterdir()
    plans = (run / "plan.json", run / "attempts" / "000" / "plan.json")
    submitted, real = (read_json(plan)["memory"] for plan in plans)
    assert submitted == real and submitted["largest_micro_batch"] == 24
    ((step, predicted),) = metric_rows(folder / "mlflow.db", "memory/predicted_peak_gib")
    ((same_step, observed),) = metric_rows(folder / "mlflow.db", "memory/observed_peak_gib")
    assert step == same_step == 2
    assert 0 < predicted < observed < 1


def test_a_plan_says_that_its_micro_batch_is_arithmetic_and_why(folder: Path) -> None:
    written(folder, model={"target": "blocks:Branching"})
    done = orchestrate("plan", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "largest micro-batch that fits: 24 (by arithmetic)" in done.stdout
    (warning,) = (line for line in done.stdout.splitlines() if "W_MEMORY_ARITHMETIC" in line)
    assert "could not be simulated (blocks.py:" in warning and "_local_scalar_dense" in warning


def test_a_crash_is_not_remembered_and_a_failure_of_the_code_is(folder: Path) -> None:
    for target, again in (("blocks:Aborting", True), ("blocks:Branching", False)):
        read = written(folder, model={"target": target})
        assert fitted(read)[1]
        assert bool(fitted(read)[1]) == again


def test_a_recipe_that_recomputes_asks_for_that_alone(folder: Path) -> None:
    read = written(folder, activation_checkpointing=True)
    said: list[str] = []
    plan = memory_for(read, LOCAL, code_digest="0", say=said.append)
    assert plan.method == "simulated" and plan.largest_micro_batch == 24
    assert points_said(said) and all("recompute on" in line for line in points_said(said))
