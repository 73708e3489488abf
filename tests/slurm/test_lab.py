"""The lab is a Slurm cluster, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.slurm_lab import PROGRAM, SlurmLab, outside_any_job


def test_all_four_nodes_are_idle(lab: SlurmLab) -> None:
    assert {node["name"]: node["state"] for node in lab.status()["nodes"]} == dict.fromkeys(
        ("node1", "node2", "node3", "node4"), "idle"
    )


def test_a_second_up_says_that_it_is_up_already(lab: SlurmLab) -> None:
    again = lab.call("up")
    assert (again.returncode, again.stderr) == (0, "slurm: already up\n")


def test_a_step_on_two_nodes_runs_on_two_nodes(lab: SlurmLab) -> None:
    names = lab.run(["srun", "-N2", "printenv", "SLURMD_NODENAME"]).stdout.split()
    assert sorted(names) == ["node1", "node2"]


def test_each_node_has_a_host_name_of_its_own(lab: SlurmLab) -> None:
    lab.require_namespaces()
    assert sorted(lab.run(["srun", "-N2", "hostname"]).stdout.split()) == ["node1", "node2"]


@pytest.mark.parametrize("option", ["--gres=gpu:2", "--gpus-per-node=2"])
def test_a_job_sees_the_gpus_that_it_asked_for(lab: SlurmLab, option: str) -> None:
    assert lab.run(["srun", "-N2", option, "printenv", "CUDA_VISIBLE_DEVICES"]).stdout.split() == ["0,1", "0,1"]


def test_accounting_knows_the_finished_job(lab: SlurmLab, tmp_path: Path) -> None:
    job_id = lab.submit("--wrap", "exit 3", cwd=tmp_path)
    assert lab.wait_for_state(job_id, {"FAILED", "COMPLETED"}) == "FAILED"
    assert lab.wait_for_sacct_state(job_id, {"FAILED", "COMPLETED"}) == "FAILED"


def test_a_batch_job_runs_with_the_environment_and_in_the_folder_of_its_submission(
    lab: SlurmLab, tmp_path: Path
) -> None:
    script = tmp_path / "job.sh"
    script.write_text('#!/bin/bash\necho "$GREETING from $PWD"\n')
    job_id = lab.run(
        ["sbatch", "--parsable", "--output=out", str(script)], cwd=tmp_path, env={"GREETING": "hello"}
    ).stdout.strip()
    lab.wait_for_state(job_id, {"COMPLETED"})
    assert (tmp_path / "out").read_text() == f"hello from {tmp_path}\n"


@pytest.mark.parametrize(
    ("option", "refusal"),
    [("--account=nobody", "Invalid account or account/partition"), ("--partition=nowhere", "Invalid partition")],
)
def test_sbatch_refuses_what_does_not_exist(lab: SlurmLab, tmp_path: Path, option: str, refusal: str) -> None:
    refused = lab.run(["sbatch", option, "--wrap", "true"], check=False, cwd=tmp_path)
    assert refused.returncode != 0
    assert refusal in refused.stderr


def test_one_node_reaches_another_by_its_name(lab: SlurmLab) -> None:
    lab.require_namespaces()
    conversation = """
import os, socket, time
if os.environ["SLURM_PROCID"] == "0":
    with socket.create_server(("10.77.{number}.11", 29400)) as server:
        client, (address, _) = server.accept()
        client.sendall(f"{{socket.gethostname()}} saw {{address}}".encode())
else:
    for _ in range(100):
        try:
            with socket.create_connection(("node1", 29400), timeout=5) as server:
                print(server.recv(100).decode())
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
""".format(number=lab.status()["number"])
    spoken = lab.run(["srun", "-N2", "-w", "node1,node2", "python3", "-c", conversation]).stdout
    assert spoken == f"node1 saw 10.77.{lab.status()['number']}.12\n"


def test_a_job_in_debug_preempts_one_in_preempt(lab: SlurmLab, tmp_path: Path) -> None:
    victim = lab.submit("--partition=preempt", "-N4", "--exclusive", "--wrap", "sleep 60", cwd=tmp_path)
    lab.wait_for_state(victim, {"RUNNING"})
    urgent = lab.submit("-N4", "--wrap", "true", cwd=tmp_path)
    assert lab.wait_for_state(urgent, {"COMPLETED", "FAILED"}) == "COMPLETED"
    lab.run(["scancel", victim])


@pytest.mark.parametrize("option", [(), ("--loopback",)], ids=["namespaces", "loopback"])
def test_down_leaves_nothing_behind_even_of_a_running_job(
    second_lab: SlurmLab, tmp_path: Path, option: tuple[str, ...]
) -> None:
    brought_up = second_lab.call("up", *option)
    assert brought_up.returncode == 0, brought_up.stderr
    pids = _pids_of_a_stubborn_job(second_lab, tmp_path) | _daemon_pids(second_lab)
    assert all(map(_is_alive, pids))

    number = second_lab.status()["number"]
    taken_down = second_lab.call("down")

    assert taken_down.returncode == 0, taken_down.stderr
    assert [pid for pid in pids if _is_alive(pid)] == []
    _assert_nothing_remains(second_lab, tmp_path, number)


def test_a_second_lab_takes_a_number_of_its_own_and_one_that_asks_for_a_taken_number_is_refused(
    lab: SlurmLab, second_lab: SlurmLab
) -> None:
    taken = lab.status()["number"]
    asking = SlurmLab({**second_lab.settings, "ORCHESTRATE_LAB_NUMBER": str(taken)})
    refused = asking.call("up")
    assert refused.returncode == 1
    assert f"slurm: lab number {taken} is in use: bridge lab{taken}-br belongs to " in refused.stderr
    brought_up = second_lab.call("up")
    assert brought_up.returncode == 0, brought_up.stderr
    assert second_lab.status()["number"] != taken
    assert lab.status()["lab"] == "up"


def test_down_cleans_up_after_an_up_that_was_killed_half_way(second_lab: SlurmLab, tmp_path: Path) -> None:
    env = {**outside_any_job(os.environ), **second_lab.settings}
    with subprocess.Popen([str(PROGRAM), "up"], env=env, stderr=subprocess.DEVNULL) as going_up:
        _wait_until((tmp_path / "lab" / "processes" / "slurmdbd.json").exists)
        going_up.send_signal(signal.SIGKILL)
    assert second_lab.status()["lab"] == "broken"
    pids = _daemon_pids(second_lab)
    assert len(pids) >= 2

    number = second_lab.status()["number"]
    taken_down = second_lab.call("down")

    assert taken_down.returncode == 0, taken_down.stderr
    assert [pid for pid in pids if _is_alive(pid)] == []
    _assert_nothing_remains(second_lab, tmp_path, number)


def test_up_does_not_build_in_a_folder_that_holds_something_else_and_down_does_not_remove_it(
    second_lab: SlurmLab, tmp_path: Path
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "thesis.tex").touch()
    refused = second_lab.call("up")
    assert refused.returncode == 1
    assert f"{tmp_path / 'lab'} is there and is no lab's" in refused.stderr
    second_lab.call("down")
    assert (tmp_path / "lab" / "thesis.tex").exists()


def test_up_says_which_port_is_taken_and_what_to_do(second_lab: SlurmLab) -> None:
    asking = SlurmLab({**second_lab.settings, "ORCHESTRATE_LAB_NUMBER": "9"})
    with socket.create_server(("127.0.0.1", 17981)):
        refused = asking.call("up")
    assert refused.returncode == 1
    assert refused.stderr.startswith("slurm: port 17981 is in use by another program")
    assert "set ORCHESTRATE_LAB_NUMBER to another digit" in refused.stderr


def test_env_of_a_lab_that_is_down_says_so(second_lab: SlurmLab) -> None:
    refused = second_lab.call("env")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "slurm: the lab is down; bring it up first: cluster/dev/slurm up\n"


def _pids_of_a_stubborn_job(lab: SlurmLab, folder: Path) -> set[int]:
    """Start a job whose step ignores SIGTERM and has sent a child into a session of its own."""
    step = f'trap "" TERM; setsid sleep 300 & echo $! $$ > {folder}/pids.new; mv {folder}/pids.new {folder}/pids; wait'
    lab.submit("--wrap", f"srun bash -c '{step}'", cwd=folder)
    _wait_until((folder / "pids").exists)
    return {int(pid) for pid in (folder / "pids").read_text().split()}


def _daemon_pids(lab: SlurmLab) -> set[int]:
    status = lab.status()
    daemons = [*status["daemons"], *(node["slurmd"] for node in status["nodes"])]
    return {daemon["pid"] for daemon in daemons if daemon["pid"] is not None}


def _is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _wait_until(is_so: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {timeout_s:g} s"
        time.sleep(0.05)


def _assert_nothing_remains(lab: SlurmLab, folder: Path, number: int) -> None:
    assert lab.status()["lab"] == "down"
    assert not (folder / "lab").exists()
    assert list(Path("/sys/class/net").glob(f"lab{number}-*")) == []
    assert list(Path("/run/netns").glob(f"lab{number}-*")) == []
    assert str(folder / "lab") not in Path("/proc/self/mountinfo").read_text()
    assert [pid for pid in Path("/proc").glob("[0-9]*") if _mentions(pid, str(folder / "lab"))] == []


def _mentions(process: Path, text: str) -> bool:
    """Whether the process carries the text in its environment or command line (one that has ended carries none)."""
    try:
        return text.encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    except OSError:
        return False
