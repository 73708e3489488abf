"""The lab as the tests see it: a program to call, an environment, and what Slurm says about a job."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.support.needed import skip_or_fail

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "cluster" / "dev" / "slurm"


def outside_any_job(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Slurm's programs would take as options from it."""
    return {key: value for key, value in env.items() if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))}


@dataclass(frozen=True)
class SlurmLab:
    """A lab, up or not. ``settings`` are the ORCHESTRATE_LAB_* variables that choose it (none: the usual one)."""

    settings: Mapping[str, str] = field(default_factory=dict)

    def call(self, *argv: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``cluster/dev/slurm`` itself."""
        env = {**outside_any_job(os.environ), **self.settings}
        return subprocess.run(
            [str(PROGRAM), *argv], capture_output=True, text=True, timeout=timeout_s, env=env, check=False
        )

    def status(self) -> dict[str, Any]:
        """What ``slurm status --json`` prints: lab, variant, state_dir, slurm_conf, daemons, nodes."""
        status: dict[str, Any] = json.loads(self.call("status", "--json").stdout)
        return status

    @cached_property
    def env(self) -> dict[str, str]:
        """What a process needs beside its own environment to use this lab."""
        printed = self.call("env")
        assert printed.returncode == 0, printed.stderr
        words = [shlex.split(line) for line in printed.stdout.splitlines()]
        return dict(assignment.split("=", 1) for export, assignment in words if export == "export")

    def profile(self, folder: Path) -> Path:
        """The development profile, for this lab: a file in ``folder``."""
        text = (ROOT / "cluster" / "dev.yaml").read_text()
        path = folder / "lab.yaml"
        path.write_text(text.replace("dev/state/slurm.conf", self.env["SLURM_CONF"]))
        return path

    def require_namespaces(self) -> None:
        """Skip (in CI: fail) where the nodes have no host names and addresses of their own."""
        if self.status()["variant"] != "namespaces":
            skip_or_fail("the lab runs in its loopback variant here")

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 60,
        check: bool = True,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program against the lab; with ``check`` a failure is the test's, told by its stderr."""
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=cwd,
            env={**outside_any_job(os.environ), **self.env, **(env or {})},
            check=False,
        )
        assert not check or done.returncode == 0, f"{shlex.join(argv)}: {done.stderr}{done.stdout}"
        return done

    def submit(self, *argv: str, cwd: Path) -> str:
        """``sbatch`` with these arguments, its output file in ``cwd``; returns the job id."""
        return self.run(["sbatch", "--parsable", *argv], cwd=cwd).stdout.strip()

    def state(self, job_id: str) -> str | None:
        """The job's state as the controller knows it now (for five minutes after its end), or None."""
        done = self.run(["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T"], check=False)
        return done.stdout.strip() or None

    def sacct_state(self, job_id: str) -> str | None:
        """The job's state as accounting knows it, without "by UID"; None while it has not heard of the job.

        Accounting lags: a job that has ended may be unknown to it, or RUNNING in it, for some seconds.
        """
        done = self.run(["sacct", "-n", "-X", "-P", "-j", job_id, "-o", "State"])
        return done.stdout.split(maxsplit=1)[0] if done.stdout.strip() else None

    def wait_for_state(self, job_id: str, states: Collection[str], timeout_s: float = 60) -> str:
        """Wait until the controller says that the job is in one of ``states``; fails with the last one seen."""
        return self._wait(self.state, job_id, states, timeout_s)

    def wait_for_sacct_state(self, job_id: str, states: Collection[str], timeout_s: float = 60) -> str:
        """The same, asking accounting."""
        return self._wait(self.sacct_state, job_id, states, timeout_s)

    def _wait(self, ask: Callable[[str], str | None], job_id: str, states: Collection[str], timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while (state := ask(job_id)) not in states:
            if time.monotonic() > deadline:
                wanted = " or ".join(sorted(states))
                pytest.fail(f"job {job_id} is {state} after {timeout_s:g} s, not {wanted}\n{self.story()}")
            time.sleep(0.2)
        return str(state)

    def story(self) -> str:
        """Nodes, jobs, and the last lines of what each job of the queue has printed: for a test that failed."""
        nodes = self.run(["sinfo", "--Node", "--long"], check=False).stdout
        jobs = self.run(["squeue", "--states=all", "--long"], check=False).stdout
        shown = self.run(["scontrol", "show", "job", "--oneliner"], check=False).stdout
        outputs = re.findall(r"JobState=(?:RUNNING|COMPLETING) .*StdOut=(\S+)", shown)
        return "\n".join([nodes, jobs, *(_last_lines(Path(output)) for output in outputs)])


def _last_lines(output: Path, number: int = 40) -> str:
    try:
        lines = output.read_text(errors="replace").splitlines()
    except OSError as error:
        lines = [str(error)]
    return "\n".join([f"{output}:", *lines[-number:]])
