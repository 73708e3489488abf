"""One job of a run, as its files and the scheduler's variables describe it, and the machines that it has."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.cluster import Allocation, Cluster
from orchestrator.errors import Problem, RunError
from orchestrator.files import read_json
from orchestrator.job.allocation import allocation_from_slurm, allocation_local, without_nodes
from orchestrator.job.history import History
from orchestrator.job.policy import Circumstances
from orchestrator.job.slurm_job import JobNow, ask_job, ask_unreached
from orchestrator.launch.job_script import warned_ahead_s
from orchestrator.machine import detect_accelerator, num_usable_cpus, process_start_time
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir


@dataclass(frozen=True)
class Job:
    """What one job of a run goes by: read once, the same for all its attempts."""

    run: RunDir
    recipe: Recipe
    cluster: Cluster
    own_environment: dict[str, str]
    """Variables that the recipe sets, secrets included."""
    job_id: str
    restart_count: int

    def now(self) -> JobNow | None:
        """What Slurm says of this job; None where there is no Slurm, or no answer."""
        return ask_job(self.job_id) if self.cluster.scheduler == "slurm" else None

    def unreached(self) -> frozenset[str]:
        """This job's nodes that Slurm gets no answer from. None where it says so of this one too: then it is Slurm
        that is cut off, and who says nothing to it may be at work."""
        if self.cluster.scheduler != "slurm":
            return frozenset()
        found = ask_unreached(os.environ.get("SLURM_JOB_NODELIST", ""))
        return frozenset() if os.environ.get("SLURMD_NODENAME") in found else found

    def ends_at(self) -> float | None:
        """When Slurm will end this job, in seconds since the epoch; None where it will not, or does not say."""
        now = self.now()
        return None if now is None else now.ends_at

    def warned_s(self) -> int:
        """How long before that Slurm was asked to warn the ranks, by the script of this job."""
        script = self.run.job_script
        return warned_ahead_s(script.read_text() if script.is_file() else "")


def read_job(run: RunDir, env: Mapping[str, str]) -> Job:
    """The job that the files of `run` and Slurm's variables describe. Raises RunError or RecipeError."""
    try:
        text = run.recipe.read_text()
        cluster = Cluster.model_validate_json(run.cluster.read_bytes())
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise RunError(Problem(str(error.filename), what, "submit the recipe anew")) from None
    return Job(
        run=run,
        recipe=recipe_from_stored(text, str(run.recipe)),
        cluster=cluster,
        own_environment=read_json(run.environment) or {},
        job_id=job_id_of(cluster, env),
        restart_count=int(env.get("SLURM_RESTART_COUNT", "0")),
    )


def job_id_of(cluster: Cluster, env: Mapping[str, str]) -> str:
    """Slurm's id of this job, or `local:<pid>:<start time>` of this process, which `submit` started."""
    if cluster.scheduler == "slurm":
        return env.get("SLURM_JOB_ID", "unknown")
    return f"local:{os.getpid()}:{process_start_time(os.getpid())}"


def supervisor_environment(job: Job, env: Mapping[str, str]) -> dict[str, str]:
    """What supervisors, and so ranks, inherit: all but MLflow's variables, which may hold credentials."""
    return {name: value for name, value in {**env, **job.own_environment}.items() if not name.startswith("MLFLOW_")}


def real_allocation(job: Job, env: Mapping[str, str]) -> Allocation:
    """The machines this job got. Raises LaunchError."""
    accelerator = detect_accelerator(job.cluster.accelerator)
    if job.cluster.scheduler == "slurm":
        return allocation_from_slurm(env, job.recipe, job.cluster, accelerator=accelerator)
    host = socket.gethostname()
    return allocation_local(job.recipe, accelerator=accelerator, host=host, usable_cpus=num_usable_cpus())


def circumstances(job: Job, history: History) -> Circumstances:
    """What an attempt after the next verdict could have. Raises LaunchError where Slurm's variables are missing."""
    left = without_nodes(real_allocation(job, os.environ), history.left_out)
    return Circumstances(
        resumes=not job.recipe.is_plain_command,
        has_queue=job.cluster.scheduler == "slurm",
        nodes=left.node_names,
        checkpoint_step=history.checkpoint_step,
    )
