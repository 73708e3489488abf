"""Samples of the host and of this job's GPUs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.node import sample
from orchestrator.node.gpu_sampler import GpuSampler
from orchestrator.node.sample import HostSampler, Sampler
from orchestrator.tracking.journal import Journal, read_journal_dir


def test_the_hosts_sample_has_its_units_in_its_names() -> None:
    sampler = HostSampler()
    time.sleep(0.1)
    values = sampler.sample()
    assert {"cpu_percent", "memory_percent", "memory_used_bytes", "load1"} <= set(values)
    assert 0 <= values["cpu_percent"] <= 100 and 0 < values["memory_percent"] < 100
    assert all(value >= 0 for value in values.values())


def test_even_a_short_run_has_samples(tmp_path: Path) -> None:
    with Journal(tmp_path, attempt=0, node="a", rank=None) as journal, Sampler(journal):
        time.sleep(sample.FIRST_SAMPLE_S / 2)
    kinds = [record["kind"] for _, record in read_journal_dir(tmp_path)]
    assert kinds == ["start", "system"]


def test_a_source_that_breaks_is_told_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sample, "FIRST_SAMPLE_S", 0.05)
    monkeypatch.setattr(sample, "SAMPLE_S", 0.05)
    monkeypatch.setattr(GpuSampler, "sample", lambda self: {"broken": 1 / 0})
    with Journal(tmp_path, attempt=0, node="a", rank=None) as journal, Sampler(journal):
        time.sleep(0.5)
    systems = [record["values"] for _, record in read_journal_dir(tmp_path) if record["kind"] == "system"]
    assert len(systems) >= 2 and all("load1" in values for values in systems)
    assert capsys.readouterr().out.count("ZeroDivisionError") == 1
