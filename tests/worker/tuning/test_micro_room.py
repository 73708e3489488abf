"""A larger micro-batch advised in real runs, whose GPU and its memory are made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.run_dir import RunDir
from orchestrator.tracking.events import ADVICE, TUNING
from orchestrator.worker.peak import PeakMemory
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.train import train
from orchestrator.worker.tuning import micro_room
from tests.support.worlds import add_attempt, events_of, make_run
from tests.worker.recipes import CODE, POINTS, recipe
from tests.worker.tuning.windows import SHORT

GIB = 1 << 30
LOOKED_AT_STEPS = 5


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(micro_room, "LOOKED_AT_STEPS", LOOKED_AT_STEPS)
    for module, name, value in SHORT:
        monkeypatch.setattr(module, name, value)
    yield
    torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 80 GiB, of which micro-batches of 8 take 10."""
    monkeypatch.setattr(micro_room, "memory_of", lambda device: 80 * GIB)
    monkeypatch.setattr(PeakMemory, "recent_bytes", lambda peak: 10 * GIB)


def trained(folder: Path, model: str, *, steps: int = 12, tuning: str = "off", **changes: Any) -> RunDir:
    wanted = recipe(
        POINTS,
        batch={"effective": 16, "micro": 8},
        model={"target": model},
        validation=[],
        metrics={},
        duration={"samples": 16 * steps},
        checkpoint={"every": {"minutes": 60}},
        tuning={"workers": "off", "amp": tuning},
        **changes,
    )
    run = make_run(folder, wanted, CODE)
    train(run, add_attempt(run, 1), {}, StopRequest())
    return run


def test_a_recipe_in_a_lower_precision_is_told_once(
    tmp_path: Path, gpu: None, capfd: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path / "run", "model:network", precision="bf16")
    (told,) = events_of(run, ADVICE)
    assert (told["knob"], told["to"], told["step"]) == ("batch.micro", 16, 1 + LOOKED_AT_STEPS)
    assert told["advice"].startswith("batch.micro: 16 would fit, and make 1 micro-step of the same batch, 1 fewer than")
    assert f"orchestrate: step {told['step']}: {told['advice']}" in capfd.readouterr().err


def test_a_lower_precision_that_was_kept_is_looked_at_from_then_on(tmp_path: Path, gpu: None) -> None:
    run = trained(tmp_path / "run", "precise:Unnormalised", steps=60, precision="fp32", tuning="auto")
    (kept,) = (event for event in events_of(run, TUNING) if "kept" in event)
    (told,) = events_of(run, ADVICE)
    assert kept["kept"] == "bf16" and told["step"] == kept["step"] + LOOKED_AT_STEPS
    assert "in bf16, micro-batches of 8 have taken 10.00 of 80.00 GiB at most" in told["advice"]


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        pytest.param("precise:Paced", "bf16", id="a batch norm, whose arithmetic a micro-batch is part of"),
        pytest.param("model:network", "fp32", id="a precision that frees no memory"),
    ],
)
def test_where_it_would_be_wrong_nothing_is_said(tmp_path: Path, gpu: None, model: str, precision: str) -> None:
    assert events_of(trained(tmp_path / "run", model, precision=precision), ADVICE) == []


def test_on_a_cpu_nothing_is_said(tmp_path: Path) -> None:
    assert events_of(trained(tmp_path / "run", "model:network", precision="bf16"), ADVICE) == []


def test_the_peak_of_the_whole_attempt_outlives_the_one_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([30, 10, 10])
    monkeypatch.setattr(PeakMemory, "recent_bytes", lambda peak: next(peaks))
    memory = PeakMemory(torch.device("cpu"), 0)
    memory.begin_anew()
    assert (memory.observed_bytes(), memory.recent_bytes()) == (30, 10)
