"""`orchestrate verify-topology`: what keeps the contract, and for each way to break it the reason that is found."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import LOCAL
from orchestrator.documents import dump_yaml
from orchestrator.errors import RecipeError
from orchestrator.plan.verification import VerifyReport
from orchestrator.recipe.read import read_recipe
from orchestrator.submit.topology import Wanted, verify_topology
from tests.support.command_line import orchestrate
from tests.worker.recipes import SENTENCES

ROOT = Path(__file__).parent.parent.parent
CODE = ROOT / "tests" / "data" / "topology"
POINTS = {
    "name": "points",
    "seed": 5,
    "model": {"target": "model:network"},
    "loss": {"target": "model:cross_entropy"},
    "datasets": [
        {"name": "first", "target": "data:Points", "args": {"size": 20}, "num_samples": 20},
        {"name": "second", "target": "data:Points", "args": {"size": 17}, "num_samples": 17},
    ],
    "batch": {"effective": 16},
    "optimizer": {"name": "adamw", "lr": 0.01, "clip_norm": 1.0},
    "duration": {"samples": 200},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(CODE, tmp_path / "code")
    return tmp_path / "code"


def verified(folder: Path, *, worlds: tuple[int, ...] = (1, 2), steps: int = 4, **changes: Any) -> VerifyReport:
    """The report on POINTS with other sections, in fp64."""
    (folder / "recipe.yaml").write_text(dump_yaml({**POINTS, **changes}))
    wanted = Wanted(worlds, steps, ("fp64",))
    return verify_topology(read_recipe(folder / "recipe.yaml"), LOCAL, wanted, say=lambda line: None)


def reasons(report: VerifyReport) -> list[tuple[str, str]]:
    assert not report.holds
    return [(reason.kind, reason.where) for reason in report.reasons]


def test_digits_train_the_same_on_one_to_five_ranks(tmp_path: Path) -> None:
    """Must show: after 20 steps 1e-12 in fp64; 5e-6 of loss and 1e-4 of parameters in fp32. Read from the screen."""
    recipe = ROOT / "recipes" / "digits" / "digits.yaml"
    began = time.monotonic()
    done = orchestrate("verify-topology", recipe, "--worlds", "1,2,3,4,5", cwd=tmp_path, timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"verify-topology of digits took {time.monotonic() - began:.0f} s")
    heading, table, verdict = done.stdout.split("\n\n")
    assert heading.splitlines()[:2] == ["batch      64 samples, 20 steps", "reference  one process, 1 x (64)"]
    rows = [line.split() for line in table.splitlines()[1:]]
    assert {(row[0], row[1]) for row in rows} == {(p, str(world)) for p in ("fp64", "fp32") for world in range(1, 6)}
    bounds = {"fp64": (1e-12, 1e-12), "fp32": (5e-6, 1e-4)}
    for row in rows:
        *_, loss, parameters, samples, holds = row
        assert (float(loss) <= bounds[row[0]][0], float(parameters) <= bounds[row[0]][1]) == (True, True), row
        assert (samples, holds) == ("same", "holds")
    assert any("22, 21, 21" in line for line in table.splitlines()), "ragged"
    assert any("4 x (13) + 1 x (12)" in line for line in table.splitlines()), "uneven"
    assert verdict.startswith("holds      28 of 28 topologies")
    assert list(tmp_path.iterdir()) == []


def test_dropout_is_drawn_by_sample_and_holds(folder: Path) -> None:
    assert verified(folder, model={"target": "model:with_dropout"}, worlds=(1, 2, 3)).holds


def test_a_model_that_is_to_be_compiled_is_compared_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled, its dropout could not be drawn by sample."""
    monkeypatch.setenv("CXX", str(folder / "g++"))
    assert verified(folder, model={"target": "model:with_dropout"}, compile=True).holds


def test_dropout_in_attention_of_features_and_in_recomputed_blocks_holds(folder: Path) -> None:
    """The bias of attention's keys has no gradient but rounding, which Adam makes as large as any: that is said."""
    report = verified(folder, model={"target": "model:Attention"}, activation_checkpointing=True)
    assert report.holds, report
    assert {moved.name.rpartition(".")[2] for moved in report.moved} == {"in_proj_bias"}


def test_sentences_of_different_lengths_hold_by_their_own_count(folder: Path) -> None:
    """Micro-batches are padded to their own longest sentence, and the window is divided by its tokens."""
    for file in (ROOT / "tests" / "worker" / "user_code").glob("*.py"):
        shutil.copy(file, folder)
    report = verified(folder, worlds=(1, 3, 5), **{**SENTENCES, "batch": {"effective": 16, "micro": 7}})
    assert report.holds, report
    assert report.reference == "1 x (6, 5, 5)"
    assert {row.micro_batches for row in report.rows if row.world_size == 5} >= {"1 x (4) + 4 x (3)"}


def test_a_mean_of_means_is_named_as_a_loss_that_is_no_sum(folder: Path) -> None:
    report = verified(folder, loss={"target": "model:mean_of_means"})
    assert reasons(report) == [("loss", "loss")]
    assert report.reasons[0].what.startswith("not a sum over samples")


def test_a_loss_that_asks_for_the_world_size_is_named(folder: Path) -> None:
    assert reasons(verified(folder, loss={"target": "model:shared_by_ranks"})) == [("world_size", "loss")]


def test_dropout_seeded_by_rank_is_named_with_its_module(folder: Path) -> None:
    report = verified(folder, model={"target": "model:with_rank_dropout"})
    assert reasons(report) == [("rank", "2 (RankDropout)")]
    assert {row.world_size for row in report.rows if not row.holds} >= {2}


def test_dropout_after_seeding_torch_by_rank_is_named(folder: Path) -> None:
    assert reasons(verified(folder, model={"target": "model:with_reseeded_dropout"})) == [
        ("rank", "2 (ReseededDropout)")
    ]


def test_noise_that_no_seed_governs_is_named(folder: Path) -> None:
    assert reasons(verified(folder, model={"target": "model:with_python_noise"}))[0][1] == "2 (PythonNoise)"


def test_batch_norm_is_named_with_its_module_path(folder: Path) -> None:
    report = verified(folder, model={"target": "model:with_batch_norm"})
    assert ("batch_norm", "2 (BatchNorm1d)") in reasons(report)
    assert "BatchNorm" in report.reasons[0].what


def test_a_module_that_looks_at_the_whole_micro_batch_is_named(folder: Path) -> None:
    assert reasons(verified(folder, model={"target": "model:with_batch_mean"})) == [("micro_batch", "2 (BatchMean)")]


def test_a_module_that_asks_for_the_world_size_is_named(folder: Path) -> None:
    assert reasons(verified(folder, model={"target": "model:with_world_size"})) == [("world_size", "2 (WorldScaled)")]


def test_a_loss_that_remembers_its_calls_is_named(folder: Path) -> None:
    assert reasons(verified(folder, loss={"target": "model:growing"})) == [("generator", "loss")]


def test_a_backward_that_is_no_sum_is_named(folder: Path) -> None:
    ((kind, where),) = reasons(verified(folder, model={"target": "model:with_wrong_backward"}))
    assert (kind, where.rpartition(".")[2]) in {("gradient", "weight"), ("gradient", "bias")}


def test_a_dropout_that_cannot_be_drawn_by_sample_is_said(folder: Path) -> None:
    report = verified(folder, model={"target": "model:Recurrent"})
    assert reasons(report) == [("draws", "dropout (Dropout)")]
    assert report.reasons[0].what.startswith("a random draw of shape (6, 8, 8) cannot be made by sample")


def test_samples_that_are_not_the_same_on_every_rank_are_named(folder: Path) -> None:
    ranked = [{**dataset, "target": "data:RankPoints"} for dataset in POINTS["datasets"]]  # type: ignore[attr-defined]
    report = verified(folder, datasets=ranked)
    kinds = reasons(report)
    assert kinds[0][0] == "samples"
    assert all(row.same_ids for row in report.rows)
    assert {row.world_size: row.same_data for row in report.rows} == {1: True, 2: False}


def test_a_world_that_cannot_train_says_why_and_the_others_go_on(folder: Path) -> None:
    torn = [{**POINTS["datasets"][0], "target": "data:TornPoints"}]  # type: ignore[index]
    report = verified(folder, datasets=torn, worlds=(1, 2, 3))
    assert ("failed", "world 2, 2 x (8), fp64") in reasons(report)
    assert "the disk of this rank is gone" in report.reasons[-1].what
    assert all(row.holds for row in report.rows if row.world_size == 1)


def test_a_recipe_that_one_process_cannot_train_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"one process cannot train it in fp64: TypeError: network\(\) takes"):
        verified(folder, loss={"target": "model:network"})


def test_what_does_not_hold_ends_with_status_4_and_the_reason(folder: Path, tmp_path: Path) -> None:
    (folder / "recipe.yaml").write_text(dump_yaml({**POINTS, "loss": {"target": "model:mean_of_means"}}))
    words = ("verify-topology", folder / "recipe.yaml", "--worlds", "1,2", "--steps", "2", "--precision", "fp64")
    done = orchestrate(*words, cwd=tmp_path)
    assert done.returncode == 4
    assert "reason     loss: not a sum over samples" in done.stdout
    assert "verify: fp64, world 2: 2 x (8)" in done.stderr
    done = orchestrate(*words, "--worlds", "1", "--json", cwd=tmp_path)
    assert done.returncode == 4
    facts = json.loads(done.stdout)
    assert (facts["holds"], facts["steps"], facts["reasons"][0]["kind"]) == (False, 2, "loss")


@pytest.mark.parametrize("worlds", ["0,1", "two", "1,,2"])
def test_worlds_are_numbers(folder: Path, tmp_path: Path, worlds: str) -> None:
    done = orchestrate("verify-topology", folder / "recipe.yaml", "--worlds", worlds, cwd=tmp_path)
    assert done.returncode == 2
    assert "write numbers of ranks, such as 1,2,3" in done.stderr


@pytest.mark.parametrize("kept", ["name batch optimizer duration", "name batch optimizer duration datasets"])
def test_a_command_cannot_be_verified_with_a_session_or_without(folder: Path, tmp_path: Path, kept: str) -> None:
    (folder / "train.py").touch()
    recipe = {**{key: POINTS[key] for key in kept.split()}, "command": ["train.py"]}
    (folder / "recipe.yaml").write_text(dump_yaml(recipe))
    done = orchestrate("verify-topology", folder / "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "what a command trains is its own affair" in done.stderr


def test_nothing_outlives_the_process_that_forked_it(folder: Path, tmp_path: Path) -> None:
    (folder / "recipe.yaml").write_text(dump_yaml({**POINTS, "duration": {"epochs": 2000}}))
    argv = (sys.executable, "-m", "orchestrator.cli", "verify-topology", str(folder / "recipe.yaml"), "--steps", "4000")
    parent = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stderr is not None
    with parent:
        while "world 1" not in parent.stderr.readline():
            pass
        (program,) = children_of(parent.pid)
        ranks = children_of(program)
        assert ranks
        os.kill(program, signal.SIGKILL)
        parent.wait(60)
    give_up_at = time.monotonic() + 30
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    assert parent.returncode == 1


def children_of(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
