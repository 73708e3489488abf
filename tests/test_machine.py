"""What the kernel says of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
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


def test_what_a_process_is_at_is_one_letter_and_nothing_once_it_has_ended() -> None:
    assert machine.process_state(os.getpid()) == "R"
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert machine.process_state(process.pid) == "T"
        process.kill()
    assert machine.process_state(process.pid) is None and machine.process_start_time(process.pid) is None
