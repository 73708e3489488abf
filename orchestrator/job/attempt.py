"""One attempt: plan for the machines there are, start the world, wait for it, judge it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.cluster import Allocation, Cluster
from orchestrator.errors import Problem, RecipeError, RunError
from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.job.allocation import allocation_from_slurm, allocation_local
from orchestrator.job.differences import differences
from orchestrator.job.endpoint import Meeting, arrange_meeting
from orchestrator.job.evidence import gather, log_tail
from orchestrator.job.forwarder import Forwarder
from orchestrator.job.launch_file import launch_json
from orchestrator.job.limits import learn, limit_so_far
from orchestrator.job.step import LocalStep, SrunStep, Step, supervisor_command
from orchestrator.job.verdict import Verdict, judge
from orchestrator.machine import detect_accelerator, num_usable_cpus, process_start_time
from orchestrator.plan.continuity import check_continuity
from orchestrator.plan.learnt import device_of
from orchestrator.plan.plan import Plan, make_plan, plan_from_json, plan_to_json
from orchestrator.processes import next_signal
from orchestrator.recipe.code_facts import batch_norm_in
from orchestrator.recipe.read import recipe_from_stored
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import AttemptDir, RunDir

_LOOK_S = 0.5


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


def new_attempt(run: RunDir) -> AttemptDir:
    """Make the directory of the next attempt. Raises RunError where that cannot be done."""
    last = run.last_attempt()
    attempt = run.attempt(0 if last is None else last.number + 1)
    try:
        make_private_dir(attempt.path, exist_ok=False)
        make_private_dir(attempt.logs)
    except OSError as error:
        fix = "start the run where every node can write" if not attempt.path.exists() else "another driver is at work"
        raise RunError(Problem(str(attempt.path), f"cannot be created: {error.strerror}", fix)) from None
    return attempt


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


def _plan_again(job: Job, allocation: Allocation) -> Plan:
    """The plan on the allocation that the job really got; in micro-batches that fit by all that is known.

    Raises RecipeError where there is none, or where it would not go on with what the run has saved.
    """
    submitted = plan_from_json(read_json(job.run.plan))
    learnt = limit_so_far(job.run, submitted, device=device_of(job.recipe, job.cluster, allocation.accelerator))
    batch_norm = batch_norm_in(job.recipe, job.run.snapshot_recipe)
    trained = job.run.trained_attempt(saves_itself=bool(job.recipe.command))
    try:
        plan = make_plan(
            job.recipe, job.cluster, allocation, memory=submitted.memory, learnt=learnt, batch_norm=batch_norm
        )
        if trained is not None:
            _go_on(plan_from_json(read_json(trained.plan)), plan, job.recipe)
    except RecipeError as error:
        told = (replace(problem, where=f"{job.run.recipe} {problem.where}") for problem in error.problems)
        raise RecipeError(told) from None
    return plan


def _go_on(trained: Plan, plan: Plan, recipe: Recipe) -> None:
    """Raise RecipeError where what the run has saved was trained with another batch or lr than `plan`'s."""
    problems = tuple(check_continuity(trained, plan, recipe.batch))
    if problems:
        raise RecipeError(problems)


def run_attempt(job: Job, attempt: AttemptDir, forwarder: Forwarder) -> Verdict:
    """Start the workers once, wait for their end, and say how it was. Raises OrchestratorError before they start."""
    allocation = real_allocation(job, os.environ)
    plan = _plan_again(job, allocation)
    meeting = arrange_meeting(allocation, job.cluster, job_id=job.job_id, attempt=attempt.number)
    launch = _write_attempt(job, attempt, allocation, plan, meeting)
    step = _start(job, attempt, allocation, launch["shutdown_timeout_s"])
    exit_code, asked = _wait(step, forwarder)
    evidence = gather(
        attempt,
        allocation,
        exit_code=exit_code,
        is_command=bool(job.recipe.command),
        asked=asked,
        killed_nodes=step.killed_nodes(),
    )
    verdict = judge(evidence, log_tail(attempt))
    learn(job.run, plan, verdict, device=device_of(job.recipe, job.cluster, allocation.accelerator))
    return verdict


def _write_attempt(
    job: Job, attempt: AttemptDir, allocation: Allocation, plan: Plan, meeting: Meeting
) -> dict[str, Any]:
    changed = differences(plan_from_json(read_json(job.run.plan)), plan)
    write_json(attempt.plan, plan_to_json(plan))
    write_json(
        attempt.driver,
        {
            "job_id": job.job_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": time.time(),
            "restart_count": job.restart_count,
            "nodes": list(allocation.node_names),
            "differences": list(changed),
        },
    )
    launch = launch_json(
        run_dir=job.run.path,
        attempt=attempt.number,
        attempt_dir=attempt.path,
        recipe=job.recipe,
        cluster=job.cluster,
        allocation=allocation,
        plan=plan,
        endpoint=meeting.endpoint,
        rdzv_id=meeting.rdzv_id,
        own_environment=job.own_environment,
        python=sys.executable,
    )
    write_json(attempt.launch, launch)
    _tell(f"attempt {attempt.path.name} of job {job.job_id}: {', '.join(allocation.node_names)}")
    host, port = meeting.endpoint.host, meeting.endpoint.port
    _tell(f"world size {allocation.world_size} on {allocation.accelerator}, meeting at {host}:{port}")
    for line in changed:
        _tell(f"unlike the submitted plan: {line}")
    return launch


def _start(job: Job, attempt: AttemptDir, allocation: Allocation, shutdown_timeout_s: int) -> Step:
    env = supervisor_environment(job, os.environ)
    command = supervisor_command(job.run, attempt)
    if job.cluster.scheduler == "slurm":
        return SrunStep(command, allocation, attempt, job_id=job.job_id, env=env)
    return LocalStep(command, allocation, shutdown_timeout_s=shutdown_timeout_s, env=env)


def _wait(step: Step, forwarder: Forwarder) -> tuple[int, str | None]:
    """Wait for the step's end; its exit code, and the signal that asked for it. Only the first signal is handed on."""
    asked: str | None = None
    while (exit_code := step.poll()) is None:
        forwarder.keep_running()
        number = next_signal(_LOOK_S)
        if number is not None and asked is None:
            asked = number.name
            _tell(f"got {asked}: asking the ranks to save and end")
            step.signal(number)
    return exit_code, asked


def _tell(message: str) -> None:
    print(f"driver: {message}", flush=True)
