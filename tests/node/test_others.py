"""Whose the processes on a GPU are: this job's, or provably somebody else's; of all others nothing is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from orchestrator.node.others import Look, OwnJob
from tests.node.test_gpu_sampler import SUPERVISOR, Supervised
from tests.support.fake_driver import NOT_SUPPORTED, FakeDriver
from tests.support.waiting import wait_for

FIRST, ANOTHER = "pid:[4026531836]", "pid:[4026532198]"
MINE, SOMEBODY = 1000, 1001
INIT, SHELL, DRIVER, SUPERVISING, TORCHRUN, RANK = 1, 50, 100, 110, 120, 130
IN_JOB_5 = "0::/system.slice/slurmstepd.scope/job_5/step_0/user/task_0\n"
IN_JOB_6 = "0::/system.slice/slurmstepd.scope/job_6/step_0/user/task_0\n"
IN_JOB_5_V1 = "9:name=systemd:/\n4:memory:/slurm/uid_1000/job_5/step_batch\n0::/\n"
IN_JOB_57_V1 = "9:name=systemd:/\n4:memory:/slurm/uid_1000/job_57/step_batch\n0::/\n"


@dataclass
class Machine:
    """A /proc with init, a shell, and below it the driver of a run, its supervisor, torchrun and one rank."""

    proc: Path
    cgroup: str = "0::/user.slice\n"
    namespace: str = FIRST
    _started: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.has(INIT, parent=0, user=0, cgroup="0::/\n")
        for pid, parent in ((SHELL, INIT), (DRIVER, SHELL), (SUPERVISING, DRIVER), (TORCHRUN, SUPERVISING)):
            self.has(pid, parent=parent)
        self.has(RANK, parent=TORCHRUN)
        (self.proc / "self").symlink_to(str(SUPERVISING))
        (self.proc / "self" / "ns").mkdir()
        (self.proc / "self" / "ns" / "pid").symlink_to(self.namespace)

    def has(
        self,
        pid: int,
        *,
        parent: int = INIT,
        user: int = MINE,
        started: int | None = None,
        cgroup: str | None = None,
        name: str = "python",
    ) -> int:
        """A process, by default of this user, started when its number says."""
        fields = ["S", str(parent), *["0"] * 17, str(pid if started is None else started), *["0"] * 30]
        (self.proc / str(pid)).mkdir(parents=True)
        (self.proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (self.proc / str(pid) / "status").write_text(f"Name:\t{name}\nUid:\t{user}\t0\t0\t0\n")
        (self.proc / str(pid) / "cgroup").write_text(self.cgroup if cgroup is None else cgroup)
        return pid

    def num_others(self, *pids: int) -> int | None:
        """Beside the rank."""
        job = OwnJob.here(self.proc)
        return None if job is None else Look(job).num_others([RANK, *pids])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "proc")


def test_ranks_and_all_else_below_the_driver_are_the_jobs_own(machine: Machine) -> None:
    loader, other_node = machine.has(131, parent=RANK), machine.has(111, parent=DRIVER)
    rank_there = machine.has(132, parent=other_node)
    assert machine.num_others(loader, rank_there) == 0, "a run on one machine may have more than one supervisor there"


def test_another_users_process_and_one_that_is_older_than_the_run_are_somebody_elses(machine: Machine) -> None:
    anothers = machine.has(200, user=SOMEBODY)
    older = machine.has(90)
    in_older_notebook = machine.has(210, parent=machine.has(80))
    older_from_the_same_shell = machine.has(85, parent=SHELL)
    of_a_name = machine.has(220, user=SOMEBODY, name="a) S 1 (b")
    for pid in (anothers, older, in_older_notebook, older_from_the_same_shell, of_a_name):
        assert machine.num_others(pid) == 1, pid
    assert machine.num_others(anothers, older, in_older_notebook) == 3


def test_a_later_process_of_the_same_user_may_be_one_that_has_left_the_runs_tree(machine: Machine) -> None:
    daemon, sibling = machine.has(300), machine.has(301, parent=SHELL)
    assert machine.num_others(daemon) is None and machine.num_others(sibling) is None
    assert machine.num_others(daemon, machine.has(200, user=SOMEBODY)) == 1, "at least"


@pytest.mark.parametrize(
    ("own", "cgroup", "expected"),
    [
        pytest.param(IN_JOB_5, IN_JOB_5, 0, id="in the job's cgroup"),
        pytest.param(IN_JOB_5, IN_JOB_6, 1, id="in another job's"),
        pytest.param(IN_JOB_5, "0::/user.slice\n", 1, id="in no job's"),
        pytest.param(IN_JOB_5_V1, IN_JOB_5_V1, 0, id="in the job's cgroup, version 1"),
        pytest.param(IN_JOB_5_V1, IN_JOB_57_V1, 1, id="in another job's, version 1"),
    ],
)
@pytest.mark.parametrize("started", [40, 400], ids=["before the run", "after it"])
def test_under_slurm_the_cgroup_says_whose_a_process_is(
    tmp_path: Path, own: str, cgroup: str, expected: int, started: int
) -> None:
    machine = Machine(tmp_path / "proc", cgroup=own)
    assert machine.num_others(machine.has(400, started=started, cgroup=cgroup)) == expected


def test_what_proc_does_not_show_is_unknown(machine: Machine) -> None:
    """A process that is hidden or gone, one without a number, and one whose parent ended as it was looked at."""
    orphan = machine.has(400, parent=399, user=SOMEBODY)
    for pid in (0, 999, orphan):
        assert machine.num_others(pid) is None
        assert machine.num_others(pid, machine.has(10_000 + pid, user=SOMEBODY)) == 1


def test_the_server_of_mps_is_nobody(machine: Machine) -> None:
    assert machine.num_others(machine.has(60, user=0, name="nvidia-cuda-mps")) is None


def test_where_the_job_does_not_compute_nothing_is_said(machine: Machine) -> None:
    job = OwnJob.here(machine.proc)
    assert job is not None
    assert Look(job).num_others([]) is None
    assert Look(job).num_others([machine.has(200, user=SOMEBODY)]) is None


def test_in_another_namespace_numbers_are_others_than_the_drivers(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "proc", namespace=ANOTHER)
    assert machine.num_others(machine.has(200, user=SOMEBODY)) is None


def test_a_supervisor_whose_driver_is_gone_knows_no_job(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "proc")
    (machine.proc / "self").unlink()
    (machine.proc / "self").symlink_to(str(machine.has(500, parent=INIT)))
    assert OwnJob.here(machine.proc) is None and OwnJob.here(tmp_path / "nothing") is None


@pytest.fixture
def somebody() -> Iterator[int]:
    """A process outside the job's tree, and older: its parent has ended."""
    command = ["sh", "-c", "sleep 600 < /dev/null > /dev/null 2>&1 & echo $!"]
    pid = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    yield pid
    os.kill(pid, signal.SIGKILL)


@contextmanager
def sampling(folder: Path, driver: FakeDriver) -> Iterator[tuple[Supervised, psutil.Process]]:
    """A supervisor that samples fast, below a process in the driver's place."""
    program = SUPERVISOR.replace("sample.SAMPLE_S = 0.2", "sample.SAMPLE_S = 0.2; gpu_sampler._SLOWLY = 1")
    command = ["sh", "-c", '"$@"; exit $?', "driver", sys.executable, "-c", program, str(folder / "run"), "60"]
    process = subprocess.Popen(command, env={**os.environ, **driver.env}, stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        below = wait_for(lambda: psutil.Process(process.pid).children(), timeout_s=20)
        yield Supervised(folder / "run"), below[0]
        process.stdin.close()
        assert process.wait(timeout=20) == 0
    finally:
        process.stdin.close()
        process.kill()
        process.wait()


def known(number: int) -> int | None:
    """What is to be said: in a container, where processes have other numbers than the driver knows, nothing."""
    return number if str(Path("/proc/self/ns/pid").readlink()) == FIRST else None


def others_in(node: Supervised, utilization_percent: float) -> float | None:
    """What is said of others on GPU 0 once all that was said before is over; None: nothing."""
    told = wait_for(
        lambda: (now := node.gpu()).get("0/utilization_percent") == utilization_percent and now, timeout_s=20
    )
    others: float | None = told.get("0/others")
    return others


def test_what_the_driver_names_is_told_apart_by_real_processes(tmp_path: Path, somebody: int) -> None:
    driver = FakeDriver(tmp_path)
    with sampling(tmp_path, driver) as (node, supervisor):
        own = supervisor.pid
        driver.says(util_0=1, pid_0=own)
        assert others_in(node, 1) == known(0)
        driver.says(util_0=2, pid_0=own, pid2_0=somebody)
        assert others_in(node, 2) == known(1)
        driver.says(util_0=3, pid_0=own, pid2_0=0)
        assert others_in(node, 3) is None, "another namespace's, or hidden"
        driver.says(util_0=4, pid_0=own, pid2_0=somebody, pids_fails_0=NOT_SUPPORTED)
        assert others_in(node, 4) is None
        driver.says(util_0=5, pid_0=own, pid2_0=somebody, instance_0=2)
        assert others_in(node, 5) is None, "on a slice"
        driver.says(util_0=6, pid_0=somebody)
        assert others_in(node, 6) is None, "the job is not there"
        driver.says(util_0=7, pid_0=own, pid2_0=somebody, pid3_0=0)
        assert others_in(node, 7) == known(1), "at least"
        assert node.events() == []
