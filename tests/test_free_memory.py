"""What memory is left, as the kernel says it: of the machine, and in groups of either kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.free_memory import anonymous_bytes, free_memory_bytes, unshared_bytes

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 8,000 MiB left, and nobody in any group."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16384000 kB\nMemAvailable: 8192000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("")
    (tmp_path / "cgroups").mkdir()
    return tmp_path


def left(machine: Path) -> float:
    return free_memory_bytes(machine / "proc", machine / "cgroups") / MIB


def in_group(machine: Path, line: str) -> None:
    with (machine / "proc" / "self" / "cgroup").open("a") as file:
        file.write(line + "\n")


def group(folder: Path, limit: str, used: int, droppable: int, *, version: int) -> None:
    """A group with a limit, in MiB, so much of it in use, and of that so much in files that may be dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    limit_name, usage, stat = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    (folder / limit_name).write_text(f"{limit if limit == 'max' else int(limit) * MIB}\n")
    (folder / usage).write_text(f"{used * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{stat} {droppable * MIB}\n")


def test_without_groups_it_is_what_the_machine_has(machine: Path) -> None:
    assert left(machine) == 8000


def test_a_group_may_use_its_limit_and_what_it_keeps_of_files(machine: Path) -> None:
    in_group(machine, "0::/system.slice/job_7/step_0")
    group(machine / "cgroups" / "system.slice" / "job_7" / "step_0", "max", 900, 0, version=2)
    group(machine / "cgroups" / "system.slice" / "job_7", "1000", 900, 300, version=2)
    assert left(machine) == 400


def test_the_older_kind_of_groups_counts_too(machine: Path) -> None:
    in_group(machine, "9:cpuset:/slurm")
    in_group(machine, "4:memory:/slurm/uid_0/job_7")
    in_group(machine, "0::/")
    group(machine / "cgroups" / "memory" / "slurm" / "uid_0" / "job_7", "500", 700, 0, version=1)
    assert left(machine) == 0


def test_in_a_container_the_group_is_the_root_of_what_is_seen(machine: Path) -> None:
    in_group(machine, "0::/of/the/host")
    group(machine / "cgroups", "600", 100, 0, version=2)
    assert left(machine) == 500


def test_a_machine_that_does_not_tell_is_an_error_and_no_number(machine: Path) -> None:
    (machine / "proc" / "meminfo").write_text("MemTotal: 16384000 kB\n")
    with pytest.raises(OSError, match="no MemAvailable"):
        left(machine)


def test_in_a_real_group_no_more_is_left_than_the_group_has(memory_group: Path) -> None:
    script = (
        "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "from orchestrator.free_memory import free_memory_bytes; print(free_memory_bytes())"
    )
    command = [sys.executable, "-c", script, str(memory_group / "cgroup.procs")]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert 16 * MIB < int(told) <= 64 * MIB
    assert free_memory_bytes() > 64 * MIB


def test_what_a_process_has_of_its_own_is_what_it_wrote() -> None:
    """The child has a copy of the 64 MiB of its parent until it writes to a part of them."""
    script = """
import os, signal
from orchestrator.free_memory import anonymous_bytes, unshared_bytes
block = bytearray(b"x") * (64 << 20)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    block[: 16 << 20] = bytes(16 << 20)
    os.write(writer, b"1")
    signal.pause()
os.read(reader, 1)
print(anonymous_bytes(), unshared_bytes(child))
os.kill(child, 9)
"""
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    own, child = (int(word) / MIB for word in told.split())
    assert 64 < own < 128 and 16 < child < 48


def test_of_a_process_that_is_gone_nothing_is_said() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with pytest.raises(OSError):
        unshared_bytes(done.pid)
    assert anonymous_bytes() > 0
