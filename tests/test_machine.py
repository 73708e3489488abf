"""What the kernel says of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import machine


def test_the_kernels_kills_for_want_of_memory_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.num_oom_kills() >= 0
    vmstat = tmp_path / "vmstat"
    monkeypatch.setattr(machine, "VMSTAT", vmstat)
    assert machine.num_oom_kills() == 0
    vmstat.write_text("pgfault 7\noom_kill 3\noom_killer 9\n")
    assert machine.num_oom_kills() == 3
