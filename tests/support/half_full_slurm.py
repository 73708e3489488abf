"""A Slurm of four nodes of which two are busy for an hour, as small programs on PATH."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fake_slurm import install_programs

PROFILE = """
name: half
scheduler: slurm
accelerator: cpu
gpu_request: gres
partitions:
  debug: {nodes: {num_nodes: 4, gpus: 4, cpus: 8, memory: "6000M"}, default: true}
  long: {nodes: {num_nodes: 2, gpus: 4, cpus: 8, memory: "6000M"}}
"""
PROGRAM = f"""#!{sys.executable}
import datetime, json, pathlib, re, shutil, sys
room = pathlib.Path(sys.argv[0]).parent.parent
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
answers = json.loads((room / "answers.json").read_text())
if "down" in answers:
    sys.exit(f"slurm_load: error: {{answers['down']}}")
if name == "scontrol" and words == ["ping"]:
    print("Slurmctld(primary) at ctl is UP")
elif name == "scontrol" and "config" in words:
    print("ClusterName             = half")
elif name == "scontrol" and "partition" in words:
    for partition, nodes in {{"debug": "node[1-4]", "long": "node[1-2]"}}.items():
        print(f"PartitionName={{partition}} MaxNodes=UNLIMITED MaxTime=UNLIMITED Nodes={{nodes}} State=UP")
elif name == "scontrol" and "node" in words:
    for number in range(1, 5):
        partitions = "debug,long" if number <= 2 else "debug"
        machine = f"CPUTot=8 RealMemory=6000 Gres=gpu:4 Partitions={{partitions}}"
        print(f"NodeName=node{{number}} {{machine}} State={{'ALLOCATED' if number <= 2 else 'IDLE'}}")
elif name == "sbatch" and words == ["--test-only"]:
    script = sys.stdin.read()
    keys = ("nodes", "gres", "partition")
    nodes, gpus, partition = (re.search(rf"--{{key}}=(?:gpu:)?(\\w+)", script)[1] for key in keys)
    said = answers.get(f"{{nodes}}x{{gpus}} {{partition}}") or answers.get(partition)
    if said:
        sys.exit(f"allocation failure: {{said}}")
    waits = datetime.timedelta(hours=int(partition == "long" or int(nodes) > 2))
    start = (datetime.datetime.now() + waits).isoformat(timespec="seconds")
    what = f"using 4 processors on nodes node[3-4] in partition {{partition}}"
    print(f"sbatch: Job 9 to start at {{start}} {{what}}", file=sys.stderr)
elif name == "sbatch":
    shutil.copy(words[-1], room / "received.sh")
    print("Submitted batch job 41")
"""


@dataclass(frozen=True)
class HalfFullSlurm:
    """A folder of programs to put on PATH: `debug` has two idle nodes of four, the two of `long` are busy."""

    room: Path

    @classmethod
    def install(cls, room: Path) -> HalfFullSlurm:
        install_programs(room, ("sbatch", "srun", "squeue", "sacct", "scontrol"), PROGRAM)
        slurm = cls(room)
        slurm.answers({})
        return slurm

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.room / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def answers(self, answers: dict[str, Any]) -> None:
        """What goes wrong: {"down": why} for everything, {"2x4 debug": why} or {"long": why} for an estimate."""
        (self.room / "answers.json").write_text(json.dumps(answers))

    @property
    def received(self) -> str:
        """The script that sbatch was given to run."""
        return (self.room / "received.sh").read_text()
