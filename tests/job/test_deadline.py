"""A job with a time limit, with small programs in Slurm's place: its ranks stop in time, and it has a successor."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from orchestrator.cluster import Cluster
from orchestrator.files import read_json, write_atomically, write_json
from orchestrator.last_save import END_S
from tests.job.runs import driver_on
from tests.job.test_srun import calls_of, job_variables
from tests.job.trained import make_run
from tests.worker.recipes import POINTS, recipe

SITE = Cluster(name="site", scheduler="slurm", accelerator="cpu", shutdown_grace_s=2)
PROGRAM = f"""#!{sys.executable}
import os, pathlib, subprocess, sys
room = pathlib.Path(__file__).parent
name, argv = pathlib.Path(__file__).name, sys.argv[1:]
with (room / "calls").open("a") as calls:
    print(name, *argv, file=calls)
if name == "scontrol" and "hostnames" in argv:
    print("node1")
elif name == "scontrol" and "job" in argv:
    print("JobId=41 JobState=RUNNING NodeList=node1 EndTime=" + (room / "end").read_text())
elif name == "scontrol":
    print("NodeName=node1 NodeAddr=127.0.0.1")
elif name == "sbatch":
    print("42")
elif name == "srun":
    command = [word for word in argv if not word.startswith("--")]
    sys.exit(subprocess.call(command, env={{**os.environ, "SLURM_NODEID": "0"}}))
"""


def test_ranks_that_know_when_their_job_ends_have_saved_by_then_and_slurm_is_not_asked_why(tmp_path: Path) -> None:
    """It is asked about the job once, when the attempt begins."""
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    for name in ("srun", "scancel", "scontrol", "squeue", "sbatch"):
        (slurm / name).write_text(PROGRAM)
        (slurm / name).chmod(0o700)
    ends_at = int(time.time() + END_S + 25)
    (slurm / "end").write_text(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(ends_at)))
    run = make_run(tmp_path / "runs" / "points", recipe(POINTS, batch={"effective": 16}))
    write_json(run.cluster, SITE.model_dump(mode="json"))
    write_json(run.run, {**read_json(run.run), "uid": "f00d"})
    write_atomically(run.job_script, "#!/bin/bash\n")
    with driver_on(run, env={**job_variables(slurm, "node1"), "DELAY_S": "0.2"}) as driver:
        exit_code, output = driver.end(timeout_s=120)
    assert exit_code == 0, output
    verdict, stop = driver.verdict(), read_json(driver.attempt.stop)
    assert read_json(driver.attempt.launch)["ends_at"] == ends_at
    assert stop["deadline"] is True and 1 <= stop["step"] < 21
    assert (verdict["outcome"], verdict["cause"], verdict["successor"]) == ("stopped", "time_limit", "42")
    assert verdict["checkpoint_step"] == verdict["step"] == stop["step"]
    assert [call for call in calls_of(slurm, "scontrol") if " job " in call] == ["scontrol -o show job 41"]
    assert len(calls_of(slurm, "sbatch")) == 1
