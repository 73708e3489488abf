"""On a real Slurm, before anything is submitted: what is impossible is refused, what is discovered is what is got."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.slurm_lab import SlurmLab
from tests.support.command_line import RECIPES, orchestrate

RECIPE = (RECIPES / "tiny.yaml").read_text().replace("name: tiny", "name: preflight", 1)
BOAST = """\
name: boast
scheduler: slurm
slurm_conf: {slurm_conf}
slurm_cluster: dev
accelerator: cpu
gpu_request: gres
partitions:
  debug: {{nodes: {{num_nodes: 99, gpus: 99, cpus: 99, memory: "999G"}}, default: true}}
  nope: {{nodes: {{num_nodes: 99, gpus: 99, cpus: 99, memory: "999G"}}}}
"""
"""A profile that promises everything: what is refused with it, the cluster itself has refused."""
WRAPPER = """#!/bin/sh
echo "$*" >> {log}
exec {sbatch} "$@"
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a recipe and a profile, and an sbatch on PATH that writes down how it was called."""

    folder: Path
    lab: SlurmLab

    @classmethod
    def set_up(cls, folder: Path, lab: SlurmLab) -> Desk:
        for name in ("model.py", "data.py"):
            shutil.copy(RECIPES / name, folder)
        (folder / "boast.yaml").write_text(BOAST.format(slurm_conf=lab.env["SLURM_CONF"]))
        (folder / "bin").mkdir()
        wrapper = folder / "bin" / "sbatch"
        wrapper.write_text(WRAPPER.format(log=folder / "sbatch.log", sbatch=shutil.which("sbatch")))
        wrapper.chmod(0o700)
        return cls(folder, lab)

    def write(self, resources: str, *, text: str = RECIPE) -> int:
        """Write recipe.yaml with one key of resources; returns that key's line."""
        lines = [*text.splitlines(), "resources:", f"  {resources}"]
        (self.folder / "recipe.yaml").write_text("\n".join(lines) + "\n")
        return len(lines)

    def run(self, *words: str, profile: str = "boast.yaml", env: dict[str, str] | None = None) -> Any:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return orchestrate(*words, "--cluster", profile, cwd=self.folder, env={"PATH": path, **(env or {})})

    @property
    def submissions(self) -> list[str]:
        """How sbatch was called, but for --test-only."""
        log = self.folder / "sbatch.log"
        return [line for line in log.read_text().splitlines() if line != "--test-only"] if log.exists() else []

    def jobs(self) -> str:
        """Jobs of such a recipe that the controller has ever seen, as far as it remembers."""
        return self.lab.run(["squeue", "--noheader", "--states=all", "--name=preflight", "--format=%A"]).stdout


@pytest.fixture
def desk(lab: SlurmLab, tmp_path: Path) -> Desk:
    return Desk.set_up(tmp_path, lab)


IMPOSSIBLE = {
    "unknown partition": ("partition: nope", "the cluster 'dev' has no partition 'nope'"),
    "unknown account": ("account: nobodys", "you have no account 'nobodys' on the cluster 'dev'"),
    "nine nodes": ("num_nodes: 9", "9 nodes are more than the 4 in partition 'debug'"),
    "five GPUs a node": ("gpus_per_node: 5", "5 GPUs per node are more than a node in partition 'debug' has"),
    "time over MaxTime": ('walltime: "13:00:00"', "13:00:00 is longer than partition 'debug' allows (MaxTime)"),
    "memory over the node's": ("memory: 7G", "7G per node is more than a job gets on a node in partition 'debug'"),
    "wrong GPU type": ("gpu_type: h100", "no node in partition 'debug' has a GPU of type 'h100'"),
    "unknown qos": ("qos: express", "the cluster 'dev' has no quality of service 'express'"),
    "too many cores": ("cpus_per_gpu: 9", "9 CPU cores per node are more than a job gets"),
    "unknown feature": ("constraint: infiniband", "no node in partition 'debug' has the feature 'infiniband'"),
}


@pytest.mark.parametrize(("resources", "what"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_an_impossible_request_is_refused_at_its_line_before_sbatch(desk: Desk, resources: str, what: str) -> None:
    batch = re.sub(r"batch:.*", "batch: {effective: 45}", RECIPE)
    line = desk.write(resources, text=batch)
    done = desk.run("submit", "recipe.yaml")
    assert done.returncode == 2, done.stderr
    key = resources.partition(":")[0]
    assert f"recipe.yaml:{line}:3 resources.{key}: {what}" in done.stderr
    assert desk.submissions == [] and desk.jobs() == ""
    assert not (desk.folder / "runs").exists()


def test_a_missing_script_is_refused_at_its_line_before_sbatch(desk: Desk) -> None:
    (desk.folder / "recipe.yaml").write_text(
        "name: preflight\ncommand: [train.py]\nbatch: {effective: 8}\n"
        "optimizer: {name: sgd, lr: 0.1}\nduration: {steps: 3}\n"
    )
    done = desk.run("submit", "recipe.yaml")
    assert done.returncode == 2
    assert "recipe.yaml:2:" in done.stderr and "train.py" in done.stderr
    assert desk.submissions == [] and desk.jobs() == "" and not (desk.folder / "runs").exists()


def test_what_slurm_alone_would_have_accepted_is_what_these_refusals_are_worth(desk: Desk) -> None:
    """The very requests that `sbatch --test-only` lets through: they would pend for ever, or run as something else."""
    for option in ("--time=13:00:00", "--qos=express"):
        done = desk.lab.run(["sbatch", "--test-only", option, "--wrap=true"], check=False)
        assert done.returncode == 0, done.stderr


def test_a_possible_request_is_planned_with_slurms_own_start(desk: Desk) -> None:
    desk.write('walltime: "0:01:00"')
    shown = json.loads(desk.run("plan", "recipe.yaml", "--json").stdout)
    assert re.match(r"\d{4}-\d\d-\d\dT", shown["live"]["start"]["at"])
    assert desk.submissions == []


def test_discover_gives_a_profile_with_which_plan_agrees_with_what_slurm_allocates(desk: Desk) -> None:
    found = orchestrate("cluster", "discover", "--name", "mine", cwd=desk.folder, env=desk.lab.env)
    assert found.returncode == 0, found.stderr
    (desk.folder / "mine.yaml").write_text(found.stdout)
    desk.write('walltime: "0:02:00"')
    shape = ("--set", "resources.num_nodes=2", "--set", "resources.gpus_per_node=2", "--set", "resources.memory=2000M")
    done = desk.run("plan", "recipe.yaml", *shape, "--json", profile="mine.yaml")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    topology = shown["plan"]["topology"]
    directives = shown["script"].rpartition("exec ")[0].replace(f"{shown['run_dir']}/logs/", f"{desk.folder}/")
    (desk.folder / "job.sh").write_text(directives.replace("name=preflight", "name=agreed") + "exec sleep 30\n")
    job_id = desk.lab.submit("job.sh", cwd=desk.folder)
    try:
        desk.lab.wait_for_state(job_id, {"RUNNING"}, timeout_s=120)
        got = desk.lab.run(["scontrol", "--oneliner", "show", "job", job_id, "--details"]).stdout
    finally:
        desk.lab.run(["scancel", job_id])
    record = dict(word.split("=", 1) for word in got.split() if "=" in word)
    assert (record["NumNodes"], record["Partition"]) == (str(topology["num_nodes"]), topology["partition"])
    assert record["TimeLimit"] == "00:02:00" and topology["walltime_s"] == 120
    assert int(record["NumCPUs"]) == topology["num_nodes"] * topology["cpus_per_node"]
    assert record["MinMemoryNode"] == "2000M"
    tres = dict(part.split("=", 1) for part in record["TRES"].split(","))
    assert int(tres["gres/gpu"]) == topology["world_size"] == 4


def test_the_discovered_profile_is_the_one_that_the_lab_ships_with(desk: Desk) -> None:
    """But for two choices that Slurm cannot know: the GPUs have no driver, and are asked for by gres."""
    from orchestrator.profile import read_profile
    from tests.slurm.slurm_lab import ROOT

    found = orchestrate("cluster", "discover", cwd=desk.folder, env=desk.lab.env)
    (desk.folder / "mine.yaml").write_text(found.stdout)
    mine, shipped = read_profile(desk.folder / "mine.yaml"), read_profile(ROOT / "cluster" / "dev.yaml")
    own = {"accelerator": "cpu", "gpu_request": "gres", "slurm_conf": shipped.slurm_conf}
    assert mine.model_copy(update=own) == shipped


def test_another_slurm_than_the_profiles_is_not_asked_about_it(desk: Desk) -> None:
    profile = (desk.folder / "boast.yaml").read_text().replace("slurm_cluster: dev", "slurm_cluster: elsewhere")
    (desk.folder / "boast.yaml").write_text(profile)
    desk.write("qos: express")
    done = desk.run("plan", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    why = "the Slurm here is 'dev', the profile is for 'elsewhere'"
    assert done.stdout.splitlines()[-1] == f"unchecked  account, qos, live limits: {why}"


def test_a_dead_controller_is_unknown_within_seconds(desk: Desk) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    conf = Path(desk.lab.env["SLURM_CONF"]).read_text()
    dead = re.sub(r"SlurmctldPort=\d+", f"SlurmctldPort={port}", conf)
    dead = re.sub(r"SlurmctldHost=.*", "SlurmctldHost=localhost(127.0.0.1)", dead)
    (desk.folder / "dead.conf").write_text(dead)
    profile = (desk.folder / "boast.yaml").read_text().replace(desk.lab.env["SLURM_CONF"], "dead.conf")
    (desk.folder / "boast.yaml").write_text(profile)
    desk.write("num_nodes: 8")
    started = time.monotonic()
    done = desk.run("plan", "recipe.yaml", "--json")
    wall_s = time.monotonic() - started
    print(f"\na plan with a dead controller: {wall_s:.1f} s")
    assert done.returncode == 0, done.stderr
    ((unchecked),) = json.loads(done.stdout)["live"]["unchecked"]
    assert unchecked["what"] == "account, qos, live limits" and unchecked["why"].startswith("scontrol ping: ")
    assert wall_s < 15
