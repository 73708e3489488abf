"""What a journal call costs a rank, against a real optimizer step of the digits model in the same process."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from orchestrator.tracking.journal import Journal, read_journal_dir
from tests.support.threads import one_thread

NUM_ROUNDS = 3
NUM_TURNS = 4
STEPS_PER_TURN = 200
WARMUP_STEPS = 50


class DigitsStep:
    """Forward, backward and AdamW on 64 samples of 64 features: the smallest recipe's step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 10),
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.inputs = torch.randn(64, 64)
        self.targets = torch.randint(0, 10, (64,))

    def __call__(self) -> float:
        loss = torch.nn.functional.cross_entropy(self.model(self.inputs), self.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def values(step: int, loss: float) -> dict[str, float]:
    return {
        "train/loss": loss,
        "train/lr": 1e-3,
        "train/grad_norm": 0.5,
        "progress/samples": 64.0 * step,
        "time/step_s": 0.002,
        "time/data_wait_fraction": 0.01,
    }


def percentile(samples: list[float], percent: int) -> float:
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def timed_steps(train: DigitsStep, journal: Journal | None, num_steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each step (its journal call included) and of each journal call."""
    steps, calls = [], []
    for step in range(num_steps):
        started = time.perf_counter()
        loss = train()
        called = time.perf_counter()
        if journal is not None:
            journal.metrics(step, values(step, loss))
        ended = time.perf_counter()
        steps.append(ended - started)
        calls.append(ended - called)
    return steps, calls


@dataclass(frozen=True)
class Round:
    """Bare steps and steps with a journal call, in turns; all in seconds."""

    bare: list[float]
    journaled: list[float]
    calls: list[float]

    @classmethod
    def measure(cls, train: DigitsStep, journal: Journal) -> Round:
        """Bare turns begin when the journal has nothing left to write. So the first call of each other turn wakes its
        thread, which is dear (some 80 microseconds): turns are long enough that this is one call in two hundred, more
        than in training, where a report of all steps since the last one comes twice a second.
        """
        measured = cls([], [], [])
        for _ in range(NUM_TURNS):
            journal.flush()
            measured.bare.extend(timed_steps(train, None, STEPS_PER_TURN)[0])
            steps, calls = timed_steps(train, journal, STEPS_PER_TURN)
            measured.journaled.extend(steps)
            measured.calls.extend(calls)
        return measured

    @property
    def median_share(self) -> float:
        return statistics.median(self.calls) / statistics.median(self.bare)

    @property
    def p99_share(self) -> float:
        return percentile(self.calls, 99) / statistics.median(self.bare)

    @property
    def step_share(self) -> float:
        """By how much a step with a call is longer than a bare one: the call, and what the journal's thread takes."""
        return statistics.median(self.journaled) / statistics.median(self.bare) - 1

    def __str__(self) -> str:
        step, journaled, call = (statistics.median(times) * 1e6 for times in (self.bare, self.journaled, self.calls))
        return (
            f"digits step {step:.0f} us bare, {journaled:.0f} us journaled = {self.step_share:+.2%};"
            f" call with 6 values: median {call:.1f} us = {self.median_share:.2%},"
            f" p99 {percentile(self.calls, 99) * 1e6:.1f} us = {self.p99_share:.2%}"
        )


@pytest.mark.bench
@one_thread()
def test_a_journal_call_costs_under_one_percent_of_the_digits_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three rounds, the best of which counts: what else runs on the machine is not the journal's cost."""
    train = DigitsStep()
    timed_steps(train, None, WARMUP_STEPS)
    with Journal(tmp_path, attempt=0, node="node1", rank=0) as journal:
        rounds = [Round.measure(train, journal) for _ in range(NUM_ROUNDS)]
    with capsys.disabled():
        print("", *rounds, sep="\n")
    assert min(measured.median_share for measured in rounds) < 0.01
    assert min(measured.p99_share for measured in rounds) < 0.05
    assert min(measured.step_share for measured in rounds) < 0.05
    num_metrics = sum(record["kind"] == "metrics" for _, record in read_journal_dir(tmp_path))
    assert num_metrics == NUM_ROUNDS * NUM_TURNS * STEPS_PER_TURN
