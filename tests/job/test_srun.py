"""A Slurm job as the driver sees it, with small programs in Slurm's place. The real Slurm is met in tests/slurm."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from orchestrator.cluster import Allocation, Cluster
from orchestrator.files import read_json
from orchestrator.job.step import srun_command
from orchestrator.run_dir import RunDir
from tests.job.runs import driver_on, make_run
from tests.job.test_driver import SAVE_WHEN_ASKED, TELL_WORLD, pids_of_ready_ranks
from tests.support.waiting import wait_for

SITE = Cluster(name="site", scheduler="slurm", accelerator="cpu")

PROGRAM = f"""#!{sys.executable}
import os, pathlib, signal, subprocess, sys
room = pathlib.Path(__file__).parent
name, argv = pathlib.Path(__file__).name, sys.argv[1:]
with (room / "calls").open("a") as calls:
    print(name, *argv, file=calls)
if name == "scontrol" and argv[:2] == ["show", "hostnames"]:
    print("node1" if argv[2] == "node1" else "node1\\nnode2")
elif name == "scontrol":
    print("NodeName=" + argv[2], "NodeAddr=" + os.environ.get("HEAD", "127.0.0.1"))
elif name == "scancel":
    for pid in (room / "tasks").read_text().split():
        os.kill(int(pid), signal.Signals["SIG" + argv[0].partition("=")[2]])
elif name == "srun":
    command = [word for word in argv if not word.startswith("--")]
    nodes = int(next(word for word in argv if word.startswith("--nodes=")).partition("=")[2])
    tasks = []
    for node in range(nodes):
        tasks.append(subprocess.Popen(command, env={{**os.environ, "SLURM_NODEID": str(node)}}))
    (room / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A folder with the programs, and what they were asked in `calls`."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("srun", "scancel", "scontrol"):
        (folder / name).write_text(PROGRAM)
        (folder / name).chmod(0o700)
    return folder


def job_variables(slurm: Path, nodelist: str) -> dict[str, str]:
    return {
        "PATH": f"{slurm}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NODELIST": nodelist,
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_RESTART_COUNT": "2",
    }


def calls_of(slurm: Path, program: str) -> list[str]:
    return [line for line in (slurm / "calls").read_text().splitlines() if line.startswith(f"{program} ")]


def test_srun_starts_one_task_per_node_and_ends_all_when_one_fails() -> None:
    assert srun_command(Allocation(2, 4, 16, ("node1", "node7")), ("supervisor", "RUN")) == (
        *("srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--nodelist=node1,node7"),
        *("--kill-on-bad-exit=1", "--no-kill", "--overlap", "--cpus-per-task=16"),
        *("supervisor", "RUN"),
    )
    assert not any("cpus" in word for word in srun_command(Allocation(1, 1), ("supervisor",)))


def test_a_job_on_one_node_runs_by_srun(slurm: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TELL_WORLD, gpus_per_node=2, cluster=SITE)
    with driver_on(run, env=job_variables(slurm, "node1")) as driver:
        exit_code, output = driver.end()
    assert exit_code == 0, output
    (call,) = calls_of(slurm, "srun")
    assert call == (
        "srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist=node1 --kill-on-bad-exit=1 --no-kill --overlap "
        "--cpus-per-task=4 "
        f"{sys.executable} -m orchestrator.node {run.path} 0"
    )
    facts = read_json(driver.attempt.driver)
    assert (facts["job_id"], facts["restart_count"], facts["nodes"]) == ("41", 2, ["node1"])
    assert read_json(driver.attempt.launch)["rdzv_id"].startswith("41.0.")
    assert (driver.attempt.rank_log(1)).read_text().startswith("1 1 2 ")


def test_a_signal_at_the_driver_goes_to_the_steps_by_scancel_and_never_to_srun(slurm: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SAVE_WHEN_ASKED, cluster=SITE)
    with driver_on(run, env=job_variables(slurm, "node1")) as driver:
        wait_for(lambda: pids_of_ready_ranks(run, 1))
        driver.process.send_signal(signal.SIGTERM)
        exit_code, output = driver.end(timeout_s=30)
    assert exit_code == 0, output
    assert calls_of(slurm, "scancel") == ["scancel --signal=TERM 41"]
    assert driver.verdict()["reason"] == "saved at step 7 after SIGTERM"


@pytest.mark.parametrize(
    ("head", "found"), [("127.0.0.1", "127.0.0.1"), ("no-such-host.invalid", "none")], ids=["loopback", "no address"]
)
def test_two_nodes_whose_head_nobody_reaches_do_not_start(slurm: Path, tmp_path: Path, head: str, found: str) -> None:
    """Slurm is asked again for a while, a plain command's too: nothing has begun that could be spoilt."""
    run: RunDir = make_run(tmp_path / "run", TELL_WORLD, num_nodes=2, cluster=SITE)
    with driver_on(run, env={**job_variables(slurm, "node[1-2]"), "HEAD": head}) as driver:
        assert driver.end(timeout_s=45)[0] == 4
    assert len(list(run.all_attempts())) == 3
    reason = f"node1 ({head}): has no address that other nodes reach, only {found}"
    assert driver.verdict()["reason"].startswith(reason)
    assert calls_of(slurm, "srun") == []
