"""The loop in this process, a world of one: precisions, counts, evaluation, cadences."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.files import read_json
from orchestrator.plan.batch import window_shares
from orchestrator.plan.mixture import order_of
from orchestrator.recipe.amounts import Cadence
from orchestrator.recipe.read import read_recipe
from orchestrator.run_dir import RunDir
from orchestrator.worker.evaluation import share_of
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.progress import Cadences, Progress
from orchestrator.worker.targets import UserCode
from orchestrator.worker.train import train
from tests.support.worlds import ROOT, add_attempt, events_of, make_run, metrics_of, run_world
from tests.worker.recipes import CODE, POINTS, SENTENCES, recipe


def trained(folder: Path, wanted: dict[str, Any], code: Path = CODE) -> RunDir:
    """A run of `wanted`, trained in this process."""
    run = make_run(folder, wanted, code)
    train(run, add_attempt(run, 1), {}, StopRequest())
    return run


def one_big_batch(num_steps: int) -> dict[int, float]:
    """The sentences recipe without micro-batches, ranks or the trainer: plain PyTorch, sums divided by all tokens."""
    code = UserCode(CODE)
    dataset = code.load("data:Sentences")(size=30)
    loss, count = code.load("model:token_loss"), code.load("data:count_tokens")
    torch.default_generator.manual_seed(11)
    model = code.load("model:Language")().double()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    order, losses = order_of(11, [("text", 30)]), {}
    for step in range(num_steps):
        window = range(16 * step, min(16 * step + 16, 110))
        lr = 0.01 * min(1.0, (window.start + 16) / 50)
        if window.start + 16 > 50:
            lr = 0.01 * (1 + math.cos(math.pi * max(window.start - 50, 0) / 60)) / 2
        optimizer.param_groups[0]["lr"] = lr
        inputs, targets = dataset.collate_fn([dataset[i] for i in order.ids(window)])
        optimizer.zero_grad()
        mean = loss(model(**inputs), targets)[0] / count(targets)
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
        losses[step + 1] = mean.item()
    return losses


def test_a_loss_over_tokens_equals_one_big_batch_in_plain_pytorch(tmp_path: Path) -> None:
    """Sentences of 1 to 8 tokens in micro-batches of 3: the count that divides is the window's, on all ranks."""
    expected = one_big_batch(7)
    assert len(window_shares(16, world_size=1, largest_micro_batch=3)[0]) == 6
    run = make_run(tmp_path / "two", SENTENCES, CODE)
    run_world(run, 2)
    for found in (metrics_of(trained(tmp_path / "one", SENTENCES), "train/loss"), metrics_of(run, "train/loss")):
        assert found == pytest.approx(expected, rel=1e-12)


def test_windows_in_which_nothing_counts_are_passed_over(tmp_path: Path) -> None:
    args = {"size": 30, "first_counts": False}
    text = [{"name": "text", "target": "data:Sentences", "args": args, "num_samples": 30}]
    run = trained(tmp_path / "run", recipe(SENTENCES, datasets=text))
    assert metrics_of(run, "train/loss") == {}
    assert [event["step"] for event in events_of(run, "empty_window")] == list(range(1, 8))
    assert max(metrics_of(run, "progress/samples").values()) == 110


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_learns_about_the_same(tmp_path: Path, uninterrupted: RunDir, precision: str) -> None:
    run = trained(tmp_path / "run", recipe(POINTS, precision=precision))
    expected, found = metrics_of(uninterrupted, "train/loss"), metrics_of(run, "train/loss")
    assert found[1] == pytest.approx(expected[1], rel=2e-2)
    assert found[21] == pytest.approx(expected[21], rel=1e-1)
    state = torch.load(run.checkpoints / "step-00000021" / "optimizer.pt", weights_only=True)
    assert ("scale" in state["scaler"]) == (precision == "fp16")


def test_dropout_resumes_exactly(tmp_path: Path) -> None:
    """Its random numbers are a function of seed, step and rank: no generator state is stored, none is needed."""
    dropped = recipe(POINTS, model={"target": "model:network", "args": {"dropout": 0.5}})
    whole = metrics_of(trained(tmp_path / "whole", dropped), "train/loss")
    run = make_run(tmp_path / "pieces", dropped, CODE)
    train(run, add_attempt(run, 1), {}, StopRequest())
    (run.checkpoints / "step-00000021" / "COMMIT").unlink()
    train(run, add_attempt(run, 1), {}, StopRequest())
    again = metrics_of(run, "train/loss", attempt=1)
    assert again and again == {step: whole[step] for step in again}


def test_several_validation_sets_have_metrics_of_their_own(tmp_path: Path) -> None:
    sets = [
        {"name": name, "target": "data:Points", "args": {"size": size, "seed": 2}, "num_samples": size}
        for name, size in (("small", 2), ("large", 50))
    ]
    run = trained(tmp_path / "run", recipe(POINTS, validation=sets, evaluation={"every": {"samples": 100}, "batch": 7}))
    for metric in ("loss", "accuracy"):
        assert list(metrics_of(run, f"val/small/{metric}")) == [7, 13, 19, 21]
        assert list(metrics_of(run, f"val/large/{metric}")) == [7, 13, 19, 21]
    done = read_json(run.attempt(0).done)
    assert done["metrics"]["val/large/accuracy"] == metrics_of(run, "val/large/accuracy")[21]


def test_evaluation_shares_every_sample_once_even_where_ranks_outnumber_samples() -> None:
    for num_samples, world_size in ((3, 4), (50, 3), (0, 2)):
        draws = [share_of(num_samples, world_size=world_size, rank=r, largest_batch=7) for r in range(world_size)]
        assert [i for share in draws for draw in share for i in draw.ids] == list(range(num_samples))


def test_a_run_without_validation_ends_without_metrics(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", recipe(POINTS, validation=[], metrics={}))
    assert read_json(run.attempt(0).done)["metrics"] == {}


def test_evaluations_and_checkpoints_are_due_where_a_multiple_was_crossed() -> None:
    cadences = Cadences(total_samples=100, evaluate_every_samples=30, save_every_samples=16, save_every_s=None)
    due = [n for n in range(0, 101, 20) if cadences.evaluation_due(Progress(consumed_samples=n, evaluated_samples=0))]
    assert due == [40, 60, 80, 100]
    assert not cadences.evaluation_due(Progress(consumed_samples=50, evaluated_samples=40))
    assert not cadences.evaluation_due(Progress(consumed_samples=100, evaluated_samples=100))
    assert cadences.save_due(15, 16) and not cadences.save_due(16, 31)
    assert Cadence(minutes=5.0).minutes == 5


def test_user_modules_import_their_siblings_and_shadow_nobody(tmp_path: Path) -> None:
    """A recipe may call a file `json.py`: it gets its own, and everyone else the standard library's."""
    (tmp_path / "parts").mkdir()
    for file, text in {
        "tokenize.py": "from json import mine\nimport parts.deep\nWHO = mine + parts.deep.WHO",
        "json.py": "mine = 'sibling'",
        "parts/__init__.py": "",
        "parts/deep.py": "from .near import WHO",
        "parts/near.py": "from collections import abc\nWHO = ' and near'",
    }.items():
        (tmp_path / file).write_text(text)
    code = UserCode(tmp_path)
    assert code.load("tokenize:WHO") == "sibling and near"
    assert code.load("parts.deep:WHO") == " and near"
    assert hasattr(sys.modules["json"], "dumps") and "parts" not in sys.modules
    assert UserCode(tmp_path).load("json:mine") == "sibling"
    assert code.load("collections:abc") is sys.modules["collections.abc"]


def test_the_digits_recipe_reads_digits(tmp_path: Path) -> None:
    folder = ROOT / "recipes" / "digits"
    run = trained(tmp_path / "run", read_recipe(folder / "digits.yaml").recipe.model_dump(mode="json"), folder)
    assert read_json(run.attempt(0).done)["metrics"]["val/accuracy"] >= 0.97
