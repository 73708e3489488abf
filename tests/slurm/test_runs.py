"""Whole runs on the lab: the same science on every shape, the script that was shown, two at once, one cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.slurm_lab import ROOT, SlurmLab
from tests.support.browser import open_page
from tests.support.command_line import RECIPES, orchestrate
from tests.support.tracked import largest_difference, losses, metric_rows, records, tag_of_run, windows

DIGITS = ROOT / "recipes" / "digits" / "digits.yaml"
PROFILE = ("--cluster", ROOT / "cluster" / "dev.yaml", "--set", "resources.cpus_per_gpu=1")
SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2)]
IDS = ("--set", "tracking.sample_ids=true", "--json")
FP64 = (*IDS, "--set", "precision=fp64")
FP32_BEGINNING = (*IDS, "--set", "duration.epochs=3")


@dataclass(frozen=True)
class Run:
    """A run that has ended: where it is, and its job."""

    path: Path
    job_id: str
    shown: str
    """The script that `plan` printed before it was submitted."""

    @property
    def verdict(self) -> dict[str, Any]:
        verdict: dict[str, Any] = json.loads((self.path / "attempts" / "000" / "verdict.json").read_text())
        return verdict

    @property
    def launch(self) -> dict[str, Any]:
        launch: dict[str, Any] = json.loads((self.path / "attempts" / "000" / "launch.json").read_text())
        return launch


def submit(cwd: Path, recipe: Path, *words: str | Path) -> Run:
    """Hand a recipe over and return at once."""
    planned = [word for word in words if word not in ("--json", "--again")]
    shown = orchestrate("plan", recipe, *planned, "--show", "script", cwd=cwd).stdout
    done = orchestrate("submit", recipe, *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    return Run(Path(facts["run_dir"]), facts["job_id"], shown)


def shaped(num_nodes: int, gpus_per_node: int) -> tuple[str | Path, ...]:
    nodes, gpus = f"resources.num_nodes={num_nodes}", f"resources.gpus_per_node={gpus_per_node}"
    return (*PROFILE, "--set", nodes, "--set", gpus, "--again")


def on_every_shape(lab: SlurmLab, cwd: Path, words: Sequence[str]) -> dict[tuple[int, int], Run]:
    """The digits on each shape, one after the other: two cores are not four jobs' worth."""
    runs = {}
    for shape in SHAPES:
        runs[shape] = submit(cwd, DIGITS, *words, *shaped(*shape))
        lab.wait_for_state(runs[shape].job_id, {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}, timeout_s=300)
    return runs


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits in one process on this machine, in fp64 to the end and in fp32 for its beginning."""
    cwd = tmp_path_factory.mktemp("local")
    found = {}
    for name, words in {"fp64": FP64, "fp32": FP32_BEGINNING}.items():
        done = orchestrate("submit", DIGITS, *words, "--wait", cwd=cwd)
        assert done.returncode == 0, done.stderr
        found[name] = Path(json.loads(done.stdout)["run_dir"])
    return found


@pytest.fixture(scope="module")
def fp64(lab: SlurmLab, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Run]:
    return on_every_shape(lab, tmp_path_factory.mktemp("fp64"), FP64)


@pytest.fixture(scope="module")
def fp32(lab: SlurmLab, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Run]:
    return on_every_shape(lab, tmp_path_factory.mktemp("fp32"), FP32_BEGINNING)


@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
def test_in_fp64_every_shape_sees_the_same_samples_and_the_same_loss_to_1e_12(
    local: dict[str, Path], fp64: dict[tuple[int, int], Run], shape: tuple[int, int]
) -> None:
    run = fp64[shape]
    assert windows(run.path) == windows(local["fp64"])
    difference = largest_difference(losses(local["fp64"]), losses(run.path))
    print(f"\n{shape[0]}x{shape[1]} fp64: largest relative difference of the loss {difference:.1e}")
    assert difference <= 1e-12


@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
def test_in_fp32_the_loss_agrees_to_5e_6_over_the_first_20_steps(
    local: dict[str, Path], fp32: dict[tuple[int, int], Run], shape: tuple[int, int]
) -> None:
    run = fp32[shape]
    assert windows(run.path) == windows(local["fp32"])
    one, other = (
        {step: loss for step, loss in losses(path).items() if step <= 20} for path in (local["fp32"], run.path)
    )
    difference = largest_difference(one, other)
    print(f"\n{shape[0]}x{shape[1]} fp32: largest relative difference of the loss {difference:.1e}")
    assert len(one) == 20 and difference <= 5e-6


def test_accounting_has_every_job_as_completed(lab: SlurmLab, fp64: dict[tuple[int, int], Run]) -> None:
    for run in fp64.values():
        assert lab.wait_for_sacct_state(run.job_id, {"COMPLETED", "FAILED", "CANCELLED"}) == "COMPLETED"


def test_both_nodes_are_named_in_mlflow_and_every_point_is_there_once(fp64: dict[tuple[int, int], Run]) -> None:
    run = fp64[2, 2]
    database = run.path.parent.parent / "mlflow.db"
    run_id = json.loads((run.path / "forward" / "mlflow.json").read_text())["run_id"]
    assert tag_of_run(database, run_id, "orchestrate.nodes") == "node1,node2"
    assert tag_of_run(database, run_id, "orchestrate.hosts") == "node1,node2"
    sent = metric_rows(database, "train/loss", run_id=run_id)
    assert [step for step, _ in sent] == sorted(losses(run.path))


def test_a_report_on_two_nodes_is_a_page_that_a_browser_shows_and_that_asks_nobody(
    fp64: dict[tuple[int, int], Run], tmp_path: Path
) -> None:
    run, page = fp64[2, 2], tmp_path / "report.html"
    done = orchestrate("report", run.path, "--html", page, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["num_devices"], len(told["parts"])) == ("done", 4, 40)
    assert 0 < told["waited_hours"] < told["step_hours"] < told["device_hours"]
    opened = open_page(page, tmp_path / "browser")
    assert opened.requests == []
    assert f"<h1>{run.path.name}</h1>" in opened.dom and opened.dom.count('<rect class="wait"') > 20
    assert opened.picture.stat().st_size > 20_000, "an empty page is smaller"


def test_the_script_that_plan_shows_is_what_submit_hands_over_and_sbatch_runs_it(lab: SlurmLab, tmp_path: Path) -> None:
    """`plan --show script > s.sh && sbatch s.sh`, with the run directory written by `submit --prepare`."""
    tiny = RECIPES / "tiny.yaml"
    shown = orchestrate("plan", tiny, *PROFILE, "--show", "script", cwd=tmp_path)
    (tmp_path / "s.sh").write_text(shown.stdout)
    prepared = orchestrate("submit", tiny, *PROFILE, "--prepare", "--json", cwd=tmp_path)
    run_dir = Path(json.loads(prepared.stdout)["run_dir"])
    job_id = lab.submit("s.sh", cwd=tmp_path)
    assert lab.wait_for_state(job_id, {"COMPLETED", "FAILED"}, timeout_s=120) == "COMPLETED"
    assert (run_dir / "job.sh").read_bytes() == shown.stdout.encode()
    assert lab.run(["scontrol", "write", "batch_script", job_id, "-"]).stdout.startswith(shown.stdout)
    assert json.loads(orchestrate("status", "--json", cwd=tmp_path).stdout)[0]["job_id"] == job_id


def test_slurm_has_the_bytes_that_plan_showed(lab: SlurmLab, fp32: dict[tuple[int, int], Run]) -> None:
    for run in fp32.values():
        assert run.shown == (run.path / "job.sh").read_text()
        assert lab.run(["scontrol", "write", "batch_script", run.job_id, "-"]).stdout.startswith(run.shown)


def test_two_jobs_started_at_once_on_the_same_two_nodes_form_their_own_worlds(lab: SlurmLab, tmp_path: Path) -> None:
    words = (*shaped(2, 1), *IDS)
    argv = (sys.executable, "-m", "orchestrator.cli", "submit", str(RECIPES / "tiny.yaml"), *map(str, words))
    both = [
        subprocess.Popen((*argv, "--set", f"seed={seed}"), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for seed in (1, 2)
    ]
    facts = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    runs = [Run(Path(fact["run_dir"]), fact["job_id"], "") for fact in facts]
    for run in runs:
        assert lab.wait_for_state(run.job_id, {"COMPLETED", "FAILED"}, timeout_s=180) == "COMPLETED"
    endpoints = {(run.launch["endpoint"]["host"], run.launch["endpoint"]["port"]) for run in runs}
    assert len(endpoints) == 2 and len({run.launch["rdzv_id"] for run in runs}) == 2
    assert {node["name"] for run in runs for node in run.launch["nodes"]} == {"node1", "node2"}
    first, second = (windows(run.path) for run in runs)
    assert first.keys() == second.keys() == set(range(1, 17))
    assert all(len(ids) == 16 for ids in (*first.values(), *second.values()))
    assert first != second


def test_a_cancelled_job_saves_on_all_nodes_and_resumes_on_this_machine(lab: SlurmLab, tmp_path: Path) -> None:
    slow = RECIPES / "slow.yaml"
    run = submit(tmp_path, slow, *shaped(2, 1), "--json", "--set", "duration.steps=600")
    deadline = time.monotonic() + 120
    while max(losses(run.path), default=0) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    cancelled = orchestrate("cancel", run.path.name, cwd=tmp_path)
    assert cancelled.returncode == 0, cancelled.stderr
    assert lab.wait_for_state(run.job_id, {"COMPLETED", "FAILED", "CANCELLED"}, timeout_s=60) == "COMPLETED"
    assert (run.verdict["outcome"], run.verdict["step"] < 600) == ("stopped", True)
    local = ("--cluster", ROOT / "cluster" / "local.yaml", "--set", "resources.num_nodes=1", "--wait")
    resumed = orchestrate("resume", run.path.name, *local, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert sorted(windows(run.path)) == list(range(1, 601))


def test_a_rank_killed_on_two_nodes_resumes_on_one_node_with_three_ranks(
    lab: SlurmLab, local: dict[str, Path], tmp_path: Path
) -> None:
    """2x2 until `kill -9` in mid-epoch, of the driver too; then 1x3 with other loader processes: one process's run."""
    saving = ("--set", "checkpoint.every.epochs=1", "--set", "loader.workers=1")
    uneven = ("--set", "batch.on_indivisible=uneven")
    run = submit(tmp_path, DIGITS, *FP64, *saving, *uneven, *shaped(2, 2))
    deadline = time.monotonic() + 120
    while max(losses(run.path), default=0) < 45:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(pid_of_rank(run.path, 3), signal.SIGKILL)
    lab.run(["scancel", "--signal=KILL", "--full", run.job_id])
    lab.wait_for_state(run.job_id, {"COMPLETED", "FAILED", "CANCELLED"}, timeout_s=120)
    other = ("--set", "resources.num_nodes=1", "--set", "resources.gpus_per_node=3", "--set", "loader.workers=2")
    resumed = orchestrate("resume", run.path.name, *other, "--json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    job_id = json.loads(resumed.stdout)["job_id"]
    assert lab.wait_for_state(job_id, {"COMPLETED", "FAILED", "CANCELLED"}, timeout_s=300) == "COMPLETED"
    (event,) = events(run.path, "resumed", attempt=1)
    saved_at = int(event["checkpoint"].removeprefix("step-"))
    assert saved_at >= 23 and event["saved_by_world_size"] == 4
    after = {step: ids for step, ids in windows(local["fp64"]).items() if step > saved_at}
    assert windows(run.path, attempt=1) == after
    found = losses(run.path)
    assert found.keys() >= after.keys()
    difference = largest_difference({step: losses(local["fp64"])[step] for step in found}, found)
    print(f"\n2x2 killed, then 1x3, fp64: largest relative difference of the loss {difference:.1e}")
    assert difference <= 1e-12


def pid_of_rank(run_dir: Path, rank: int) -> int:
    """The process that a rank's journal names: the lab's nodes are on this machine."""
    started = (record for record in records(run_dir, f"000.*.rank-{rank}.log") if record["kind"] == "start")
    return int(next(started)["pid"])


def events(run_dir: Path, name: str, *, attempt: int) -> list[dict[str, Any]]:
    """The details of rank 0's events of that name."""
    found = records(run_dir, f"{attempt:03d}.*.rank-0.log")
    return [record["detail"] for record in found if record["kind"] == "event" and record["name"] == name]


def test_a_refusal_of_the_real_slurm_names_the_recipes_key_and_leaves_nothing(lab: SlurmLab, tmp_path: Path) -> None:
    """What gets as far as sbatch unchecked, as with --offline; `test_preflight.py` has what is refused before."""
    nobody = ("--set", "resources.account=nobody")
    refused = orchestrate("submit", RECIPES / "tiny.yaml", *PROFILE, *nobody, "--offline", cwd=tmp_path)
    assert refused.returncode == 3
    assert refused.stderr.splitlines()[-2].startswith("--set resources.account=nobody: sbatch refused: ")
    assert not any((tmp_path / "runs").iterdir())
