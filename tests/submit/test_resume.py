"""A run goes on with the batch and the learning rate that it has, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import RunError
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.recipe.read import read_recipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.start import MAY_CHANGE, refuse_changes
from tests.support.command_line import TINY, orchestrate

PER_GPU = ("--set", "batch={effective: null, per_gpu: 16}", "--set", "optimizer.base_batch=16")
NEAREST = (
    "--set",
    "batch={effective: 16, on_indivisible: nearest, tolerance: 0.2}",
    "--set",
    "optimizer.base_batch=16",
)


AMP = {"fp32": (), "tuned": ("--set", "tuning.amp=auto")}


def prepared(cwd: Path, *words: str) -> RunDir:
    cwd.mkdir(exist_ok=True)
    done = orchestrate("submit", TINY, "--prepare", "--json", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return RunDir(Path(json.loads(done.stdout)["run_dir"]))


@pytest.mark.parametrize(
    ("batch", "world", "key", "would"),
    [
        (PER_GPU, 2, "batch.per_gpu", "on 2 ranks it would be an effective batch of 32 samples and a peak lr of 0.2"),
        (
            NEAREST,
            3,
            "batch.on_indivisible",
            "on 3 ranks it would be an effective batch of 15 samples and",
        ),
    ],
)
def test_a_resume_that_would_change_the_batch_is_refused_with_what_to_write(
    batch: tuple[str, ...], world: int, key: str, would: str, tmp_path: Path
) -> None:
    run = prepared(tmp_path, *batch)
    before = {path: path.read_bytes() for path in run.path.glob("*.*")}
    done = orchestrate("resume", run.path.name, "--set", f"resources.gpus_per_node={world}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    what, fix = done.stderr.splitlines()
    assert what.startswith(f"{key}: the run trains with an effective batch of 16 samples and a peak lr of 0.1; {would}")
    assert fix == "    ask for 1 rank again (resources.num_nodes x gpus_per_node), or submit it as a new run"
    assert {path: path.read_bytes() for path in run.path.glob("*.*")} == before


def test_what_has_a_checkpoint_is_held_to_the_plan_that_made_it(tmp_path: Path) -> None:
    run = prepared(tmp_path, *PER_GPU)
    attempt = run.attempt(0)
    make_private_dir(run.attempts)
    make_private_dir(attempt.path)
    plan = read_json(prepared(tmp_path, *PER_GPU, "--set", "resources.gpus_per_node=4").plan)
    write_json(attempt.plan, plan)
    assert run.trained_attempt(saves_itself=False) is None
    (make_private_dir(run.checkpoints / "step-00000003") / "COMMIT").touch()
    done = orchestrate("resume", run.path.name, cwd=tmp_path)
    assert done.returncode == 2
    assert "the run trains with an effective batch of 64 samples" in done.stderr and "ask for 4 ranks" in done.stderr


def test_a_resume_may_be_more_patient_with_silent_ranks(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    read = read_recipe(run.recipe, ("hang_timeout=0:10:00",))
    assert read.recipe.hang_timeout == "0:10:00"
    refuse_changes(run, read, may_change=MAY_CHANGE)
    with pytest.raises(RunError, match="another experiment"):
        refuse_changes(run, read_recipe(run.recipe, ("seed=9",)), may_change=MAY_CHANGE)


def test_a_resume_may_end_the_tuning_of_a_precision_and_not_begin_it(tmp_path: Path) -> None:
    fp32, tuned = (prepared(tmp_path / name, "--set", "precision=fp32", *words) for name, words in AMP.items())
    refuse_changes(tuned, read_recipe(tuned.recipe, ("tuning.amp=off",)), may_change=MAY_CHANGE)
    refuse_changes(tuned, read_recipe(tuned.recipe, ("loader.workers=1",)), may_change=MAY_CHANGE)
    with pytest.raises(RunError, match=r"tuning\.amp: a resumed run may not begin to change its precision"):
        refuse_changes(fp32, read_recipe(fp32.recipe, ("tuning.amp=auto",)), may_change=MAY_CHANGE)


def test_runs_whose_allocation_decides_their_batch_are_two_experiments(tmp_path: Path) -> None:
    names = [
        prepared(tmp_path, *batch, "--set", f"resources.gpus_per_node={world}").path.name
        for batch, world in ((PER_GPU, 4), (PER_GPU, 8), (NEAREST, 2), (NEAREST, 3))
    ]
    assert len({name.partition(".")[0] for name in names}) == 4
