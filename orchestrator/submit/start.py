"""Starting a run and starting it again: what `submit` and `resume` do once everything has been checked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.cluster import Cluster
from orchestrator.errors import Problem, RunError, SubmissionError
from orchestrator.files import read_json, write_json
from orchestrator.plan.continuity import check_continuity
from orchestrator.plan.plan import plan_from_json
from orchestrator.plan.resources import resource_checks
from orchestrator.profile import read_profile
from orchestrator.recipe.fingerprint import FREE_SECTIONS
from orchestrator.recipe.read import ReadRecipe, read_recipe
from orchestrator.run_dir import RunDir
from orchestrator.submit.backend import Submission, backend_for
from orchestrator.submit.commands import Say
from orchestrator.submit.learnt import chosen_by_hand, learnt_for, tell_store
from orchestrator.submit.outage import doubt
from orchestrator.submit.prepare import (
    Prepared,
    changed_sections,
    checks_of,
    look_at,
    plan_for,
    script_for,
    with_verdict,
)
from orchestrator.submit.run_files import (
    next_attempt,
    read_identity,
    take_back_try,
    write_job,
    write_run,
    write_submission,
    write_try,
)
from orchestrator.submit.runs import ALIVE, same_fingerprint, statuses
from orchestrator.submit.snapshot import take_snapshot
from orchestrator.submit.staged import asset_check, with_assets
from orchestrator.submit.tracker import create_mlflow_run, mlflow_ui
from orchestrator.submit.tuned import begin_tuned

MAY_CHANGE = (*FREE_SECTIONS, "batch.micro")
"""What a resumed run may change: where and how fast it runs, never what it computes. No run may begin to tune AMP."""
ORDER = ("seed", "datasets")
"""What decides the order of samples: it may change where a new order was asked for."""


def start_run(prepared: Prepared, *, cwd: Path, again: bool, only_prepare: bool, say: Say) -> None:
    """Write the run directory and hand its job script to the backend.

    Raises RunError when the same science is running, or has ended and `again` is not given; SubmissionError when the
    scheduler refuses, and then no run directory stays behind, or when it is unknown whether it has taken the job: then
    the run directory stays, since the job may use it.
    """
    refuse_twice(prepared.run_dir, again=again)
    backend = backend_for(prepared.cluster)
    if not only_prepare:
        backend.check()
    write_run(prepared, cwd=cwd)
    if only_prepare:
        return
    submission = Submission(prepared.run_dir.path.name, say)
    try:
        _hand_over(prepared.run_dir, prepared.cluster, prepared.read, submission)
    except BaseException:
        if not submission.in_doubt:
            shutil.rmtree(prepared.run_dir.path, ignore_errors=True)
        raise
    _track(prepared.run_dir, prepared.read.environment, say)


def resume_run(
    run_dir: RunDir,
    *,
    overrides: Sequence[str],
    profile: Path | None,
    offline: bool = False,
    new_order: bool = False,
    say: Say,
) -> None:
    """Start a run again from its last checkpoint, on any allocation. Unless `offline`, a Slurm is asked first.

    With `new_order`, this job may go on at the same position of another order of samples. Raises RunError when it is
    still running or is done, or when an override would change the science.
    """
    identity = read_identity(run_dir)
    state = statuses([run_dir])[0].state
    if state in ALIVE or state == "done":
        what = "is done: there is nothing to resume" if state == "done" else f"is {state}"
        raise RunError(Problem(str(run_dir.path), what, f"see `orchestrate status {run_dir.path.name}`"))
    read = read_recipe(run_dir.recipe, overrides)
    refuse_changes(run_dir, read, may_change=(*MAY_CHANGE, *(ORDER if new_order else ())))
    cluster = Cluster.model_validate(read_json(run_dir.cluster)) if profile is None else read_profile(profile)
    live = look_at(cluster, offline=offline)
    staged = asset_check(run_dir.recipe, thorough=False, run_dir=run_dir)
    checks = (*resource_checks(cluster), *checks_of(live, cluster), staged)
    read.refuse(problem for check in checks for problem in check(read.recipe))
    read = with_assets(read, run_dir)
    backend_for(cluster).check()
    code = take_snapshot(run_dir.snapshot_recipe)
    digest = code.without(identity.get("recipe", ""))
    read = replace(read, folder=code.folder)
    learnt = learnt_for(read, cluster, code_digest=digest, overrides=overrides, run_dir=run_dir)
    plan = plan_for(read, cluster, code_digest=digest, learnt=learnt, say=say)
    trained = run_dir.trained_attempt(saves_itself=read.recipe.is_plain_command) or run_dir
    for problem in check_continuity(plan_from_json(read_json(trained.plan)), plan, read.recipe.batch):
        raise RunError(problem)
    script = script_for(read, plan, cluster, run_dir)
    live = with_verdict(live, script, read, cluster)
    for one in live.unchecked if live else ():
        say(f"unchecked: {one.what}: {one.why}")
    write_submission(run_dir, read, cluster, plan, script)
    write_json(run_dir.resume, {"new_order": new_order, "first_attempt": next_attempt(run_dir)})
    tell_store(run_dir, read, cluster, code_digest=digest)
    begin_tuned(run_dir, read, cluster, code_digest=digest)
    if chosen_by_hand(overrides):
        run_dir.learnt.unlink(missing_ok=True)
    run_dir.cancel.unlink(missing_ok=True)
    _hand_over(run_dir, cluster, read, Submission(run_dir.path.name, say))
    _track(run_dir, read.environment, say)


def refuse_changes(run_dir: RunDir, read: ReadRecipe, *, may_change: Sequence[str]) -> None:
    """Raise RunError when `read` differs from the run's recipe in anything but the sections that `may_change`."""
    before = read_recipe(run_dir.recipe)
    if read.recipe.amp_tuning == "auto" != before.recipe.amp_tuning:
        what = "a resumed run may not begin to change its precision: it would be another experiment"
        raise RunError(Problem("tuning.amp", what, "leave it as it was, or submit it as a new run"))
    for key in changed_sections(before, read):
        if key not in may_change:
            what = "a resumed run may not change this: it would be another experiment"
            fix = f"resume may change {', '.join(may_change)}; or submit it as a new run"
            if key in ORDER:
                fix += "; or go on in the new order of samples: --new-order"
            raise RunError(Problem(key, what, fix))


def refuse_twice(run_dir: RunDir, *, again: bool) -> None:
    """Raise RunError when an earlier run of the same science is alive, or has ended and `again` is not given."""
    for status in statuses(same_fingerprint(run_dir)):
        name = Path(status.run_dir).name
        if status.state in ALIVE:
            what = f"the same recipe is {status.state} already (job {status.job_id})"
            raise RunError(Problem(status.run_dir, what, f"orchestrate logs -f {name}, or orchestrate cancel {name}"))
        if status.state != "prepared" and not again:
            what = f"the same recipe has run already ({status.state})"
            other = "" if status.state == "done" else f"orchestrate resume {name}, or "
            fix = f"{other}add --again to run it once more"
            raise RunError(Problem(status.run_dir, what, fix))


def facts_of(run_dir: RunDir) -> dict[str, Any]:
    """What `submit --json` prints: where the run is, and where to look at it."""
    identity = read_identity(run_dir)
    return {
        "run_dir": str(run_dir.path),
        "job_id": (read_json(run_dir.job) or {}).get("job_id"),
        "mlflow_run_id": (read_json(run_dir.mlflow) or {}).get("run_id"),
        "mlflow_ui": mlflow_ui(identity["tracking"]["uri"]),
    }


def _track(run_dir: RunDir, environment: dict[str, str], say: Say) -> None:
    if not create_mlflow_run(run_dir, environment):
        uri = read_identity(run_dir)["tracking"]["uri"]
        say(f"MLflow at {uri} does not answer; the run goes on, and its points are sent when MLflow is back")


def _hand_over(run_dir: RunDir, cluster: Cluster, read: ReadRecipe, submission: Submission) -> None:
    """Submit the job script; a refusal that is about a key of the recipe is told with its place."""
    backend, before, first_attempt = backend_for(cluster), read_json(run_dir.job), next_attempt(run_dir)
    submission.before_try = lambda: write_try(
        run_dir, backend=backend.name, first_attempt=first_attempt, submission=submission, before=before
    )
    try:
        job_id = backend.submit(run_dir, submission)
        write_job(run_dir, backend=backend.name, job_id=job_id, first_attempt=first_attempt)
    except BaseException as error:
        if not submission.in_doubt:
            take_back_try(run_dir, before)
        elif isinstance(error, KeyboardInterrupt):
            submission.say(str(doubt(submission, "it was interrupted")))
        if isinstance(error, SubmissionError) and all(one.where.startswith("resources") for one in error.problems):
            raise SubmissionError(read.document.placed(error.problems)) from None
        raise
    submission.in_doubt = False
