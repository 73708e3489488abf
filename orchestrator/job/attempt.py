"""One attempt: plan for the machines there are, start the world, wait for it, judge it."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import replace
from typing import Any

from orchestrator.cluster import Allocation
from orchestrator.errors import RecipeError
from orchestrator.files import read_json, write_json
from orchestrator.heartbeat import Heartbeat
from orchestrator.job.allocation import without_nodes
from orchestrator.job.differences import differences
from orchestrator.job.endpoint import Meeting, arrange_meeting
from orchestrator.job.evidence import Evidence
from orchestrator.job.forwarder import Forwarder
from orchestrator.job.gather import gather, log_tail
from orchestrator.job.history import History
from orchestrator.job.job import Job, real_allocation, supervisor_environment
from orchestrator.job.judge import judge
from orchestrator.job.launch_file import launch_json, too_long_a_save
from orchestrator.job.limits import learn, limit_so_far
from orchestrator.job.node_watch import NodeWatch
from orchestrator.job.slurm_job import JobNow, job_end
from orchestrator.job.step import LocalStep, SrunStep, Step, supervisor_command
from orchestrator.job.verdict import Verdict
from orchestrator.job.waiting import Watch
from orchestrator.last_save import longest_save_s
from orchestrator.plan.continuity import check_continuity
from orchestrator.plan.learnt import device_of
from orchestrator.plan.plan import Plan, make_plan, plan_from_json, plan_to_json
from orchestrator.plan.shrunk import shrunk
from orchestrator.recipe.code_facts import batch_norm_in
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import AttemptDir
from orchestrator.talk import tell
from orchestrator.tuned import share_tuned

_ASKS = 3


def _plan_again(job: Job, allocation: Allocation, *, has_lost: bool) -> Plan:
    """The plan on the allocation that the job really got; in micro-batches that fit by all that is known.

    One that `has_lost` some of its nodes keeps the batch however unevenly. Raises RecipeError where there is no plan,
    or where it would not go on with what the run has saved.
    """
    submitted = plan_from_json(read_json(job.run.plan))
    learnt = limit_so_far(job.run, submitted, device=device_of(job.recipe, job.cluster, allocation.accelerator))
    batch_norm = batch_norm_in(job.recipe, job.run.snapshot_recipe)
    saved_by = job.run.trained_attempt(saves_itself=job.recipe.is_plain_command)
    trained = None if saved_by is None else plan_from_json(read_json(saved_by.plan))
    recipe = shrunk(job.recipe, trained or submitted) if has_lost else job.recipe
    try:
        plan = make_plan(recipe, job.cluster, allocation, memory=submitted.memory, learnt=learnt, batch_norm=batch_norm)
        if trained is not None:
            _go_on(trained, plan, job.recipe)
    except RecipeError as error:
        told = (replace(problem, where=f"{job.run.recipe} {problem.where}") for problem in error.problems)
        raise RecipeError(told) from None
    return plan


def _go_on(trained: Plan, plan: Plan, recipe: Recipe) -> None:
    """Raise RecipeError where what the run has saved was trained with another batch or lr than `plan`'s."""
    problems = tuple(check_continuity(trained, plan, recipe.batch))
    if problems:
        raise RecipeError(problems)


def run_attempt(job: Job, attempt: AttemptDir, forwarder: Forwarder, history: History) -> Verdict:
    """Start the workers once, wait for their end, and say how it was. Raises OrchestratorError before they start."""
    whole = real_allocation(job, os.environ)
    allocation = without_nodes(whole, history.left_out)
    plan = _plan_again(job, allocation, has_lost=allocation.num_nodes < whole.num_nodes)
    meeting = arrange_meeting(allocation, job.cluster, job_id=job.job_id, attempt=attempt.number)
    changed = differences(plan_from_json(read_json(job.run.plan)), plan)
    heartbeat = Heartbeat(attempt.driver, **_driver_facts(job, allocation), differences=list(changed))
    launch = _write_attempt(job, attempt, allocation, plan, meeting)
    for line in changed:
        _tell(f"unlike the submitted plan: {line}")
    heartbeat.write()
    step = _start(job, attempt, allocation, launch["shutdown_timeout_s"])
    files = {name: attempt.node(name) for name in allocation.node_names}
    watch = Watch(step, forwarder, heartbeat, NodeWatch(files), job.now, job.unreached, job.run.cancel.exists)
    exit_code = watch.wait()
    evidence = gather(
        attempt,
        allocation,
        exit_code=exit_code,
        is_command=job.recipe.is_plain_command,
        opens_session=job.recipe.opens_session,
        asked=watch.asked,
        killed_nodes=step.killed_nodes(),
        silent_nodes=watch.nodes.look().silent,
    )
    verdict = judge(_with_job(job, evidence, watch), log_tail(attempt))
    learn(job.run, plan, verdict, device=device_of(job.recipe, job.cluster, allocation.accelerator))
    if verdict.outcome != "failed":
        share_tuned(job.run)
    return verdict


def _with_job(job: Job, evidence: Evidence, watch: Watch) -> Evidence:
    """What Slurm says of the job now, where the attempt did not end well: nodes that it lost, and why it ends.

    It is not asked where the ranks have said that themselves: the job has little time left.
    """
    if evidence.done is not None:
        return evidence
    if evidence.met_deadline:
        return replace(evidence, job_end="cancelled" if job.run.cancel.exists() else "time_limit")
    now = job.now()
    gone = () if now is None or not now.nodes else (node.name for node in evidence.nodes if node.name not in now.nodes)
    evidence = replace(evidence, lost_nodes=tuple(dict.fromkeys((*watch.lost, *gone))))
    if evidence.asked_by is None:
        return evidence
    if job.run.cancel.exists():
        return replace(evidence, job_end="cancelled")
    by_slurm = watch.asked is None
    end = job_end(now or _ask_again(job), evidence.asked_by, by_slurm=by_slurm, warned_s=job.warned_s())
    return replace(evidence, job_end=end)


def _ask_again(job: Job) -> JobNow | None:
    """What Slurm says of a job that was asked to end: whether the run goes on hangs on it."""
    if job.cluster.scheduler != "slurm":
        return None
    return next((now for _ in range(_ASKS) if (now := job.now()) is not None), None)


def _driver_facts(job: Job, allocation: Allocation) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_at": time.time(),
        "restart_count": job.restart_count,
        "nodes": list(allocation.node_names),
    }


def _write_attempt(
    job: Job, attempt: AttemptDir, allocation: Allocation, plan: Plan, meeting: Meeting
) -> dict[str, Any]:
    write_json(attempt.plan, plan_to_json(plan))
    save_s = longest_save_s(job.run)
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
        ends_at=None if job.recipe.is_plain_command else job.ends_at(),
        save_s=save_s,
    )
    write_json(attempt.launch, launch)
    _tell(f"attempt {attempt.path.name} of job {job.job_id}: {', '.join(allocation.node_names)}")
    host, port = meeting.endpoint.host, meeting.endpoint.port
    _tell(f"world size {allocation.world_size} on {allocation.accelerator}, meeting at {host}:{port}")
    if told := too_long_a_save(save_s, left_s=launch["shutdown_timeout_s"]):
        _tell(told)
    return launch


def _start(job: Job, attempt: AttemptDir, allocation: Allocation, shutdown_timeout_s: int) -> Step:
    env = supervisor_environment(job, os.environ)
    command = supervisor_command(job.run, attempt)
    if job.cluster.scheduler == "slurm":
        return SrunStep(command, allocation, attempt, job_id=job.job_id, env=env)
    return LocalStep(command, allocation, shutdown_timeout_s=shutdown_timeout_s, env=env)


def _tell(message: str) -> None:
    tell(f"driver: {message}")
