"""From a recipe on disk to everything that would be submitted, without writing anything.

`orchestrate plan` stops here; `orchestrate submit` writes what was prepared, byte for byte (`run_files`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cluster import LOCAL, Cluster
from orchestrator.errors import ClusterError, Problem, RecipeError
from orchestrator.last_save import longest_save_s
from orchestrator.launch.job_script import job_script
from orchestrator.machine import detect_accelerator
from orchestrator.plan.effective import BATCH_CHECKS
from orchestrator.plan.learnt import LearntLimit
from orchestrator.plan.plan import Plan, make_plan, requested_allocation
from orchestrator.plan.resources import resource_checks
from orchestrator.profile import survey_profile
from orchestrator.recipe.code_facts import batch_norm_in
from orchestrator.recipe.fingerprint import fingerprint
from orchestrator.recipe.read import ReadRecipe, read_recipe
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import target_checks
from orchestrator.run_dir import RunDir
from orchestrator.submit.commands import Say, silent
from orchestrator.submit.learnt import learnt_for
from orchestrator.submit.snapshot import Snapshot, take_snapshot
from orchestrator.submit.staged import asset_check, cache_warning, with_assets
from orchestrator.survey import Check, cautious

if TYPE_CHECKING:
    from orchestrator.submit.live import LiveReport


@dataclass(frozen=True)
class Prepared:
    """A run that could be submitted: what it is, what it would do, and the script that would start it."""

    read: ReadRecipe
    cluster: Cluster
    plan: Plan
    snapshot: Snapshot
    fingerprint: str
    run_dir: RunDir
    script: str
    tracking: dict[str, str]
    live: LiveReport | None = None
    """What the cluster itself said; None where it was not asked."""

    @property
    def recipe_name(self) -> str:
        """The file name of the recipe in its folder."""
        return Path(self.read.document.source).name

    @property
    def code_digest(self) -> str:
        """The digest of the code beside the recipe."""
        return self.snapshot.without(self.recipe_name)


def prepare(
    recipe_path: Path,
    *,
    overrides: Sequence[str],
    profile: Path | None,
    cwd: Path,
    offline: bool = False,
    thorough: bool = False,
    say: Say = silent,
) -> Prepared:
    """Read, check and plan a recipe for a cluster; `say` hears what takes its time. Unless `offline`, a Slurm is asked.

    Its assets must be staged; with `thorough` they are tried too. Raises RecipeError or ClusterError with all problems
    at once.
    """
    staged = asset_check(recipe_path, thorough=thorough)
    cluster, read, live = read_and_look(
        recipe_path, overrides=overrides, profile=profile, offline=offline, more=(staged,)
    )
    read = with_assets(read)
    if thorough and (warning := cache_warning(read, cluster)):
        say(warning)
    snapshot = take_snapshot(read.folder)
    code_digest = snapshot.without(recipe_path.name)
    learnt = learnt_for(read, cluster, code_digest=code_digest, overrides=overrides)
    plan = plan_for(read, cluster, code_digest=code_digest, learnt=learnt, say=say)
    decided = None if plan.batch.is_declared else plan.batch.effective_batch_size
    identity = fingerprint(read.recipe, snapshot.digest, decided_batch=decided)
    run_dir = RunDir(first_free(cwd / "runs" / f"{read.recipe.name}-{identity[:8]}"))
    script = script_for(read, plan, cluster, run_dir)
    return Prepared(
        read=read,
        cluster=cluster,
        plan=plan,
        snapshot=snapshot,
        fingerprint=identity,
        run_dir=run_dir,
        script=script,
        tracking=tracking_store(read, cwd),
        live=with_verdict(live, script, read, cluster),
    )


def read_both(recipe_path: Path, *, overrides: Sequence[str], profile: Path | None) -> tuple[Cluster, ReadRecipe]:
    """The cluster's profile and the recipe, checked against it. Raises one error with the problems of both."""
    cluster, read, _ = read_and_look(recipe_path, overrides=overrides, profile=profile, offline=True)
    return cluster, read


def read_and_look(
    recipe_path: Path,
    *,
    overrides: Sequence[str],
    profile: Path | None,
    offline: bool,
    more: Sequence[Check[Recipe]] = (),
) -> tuple[Cluster, ReadRecipe, LiveReport | None]:
    """The same, checked against the cluster as it is now too, unless `offline`, and by what `more` checks there are."""
    cluster, problems = _surveyed_profile(profile)
    live = look_at(cluster, offline=offline or bool(problems))
    cluster_checks = (*resource_checks(cluster), *checks_of(live, cluster))
    if problems:
        cluster_checks = tuple(map(cautious, cluster_checks))
    checks = (*target_checks(recipe_path.parent), *cluster_checks, *BATCH_CHECKS, *more)
    try:
        read = read_recipe(recipe_path, overrides, checks=checks)
    except RecipeError as error:
        raise RecipeError((*error.problems, *problems)) from None
    if problems:
        raise ClusterError(problems)
    return cluster, read, live


def _surveyed_profile(path: Path | None) -> tuple[Cluster, tuple[Problem, ...]]:
    """What could be read of the profile, and everything that is wrong with it; without one, this machine."""
    if path is None:
        return LOCAL, ()
    try:
        found = survey_profile(path)
    except ClusterError as error:
        return LOCAL, error.problems
    return found.value, found.problems


def look_at(cluster: Cluster, *, offline: bool) -> LiveReport | None:
    """The cluster as it is now; None where there is no Slurm to ask, or it shall not be asked."""
    if offline or cluster.scheduler != "slurm":
        return None
    from orchestrator.submit.live import look  # here, as below: a plan without Slurm has no use for it

    return look(cluster)


def checks_of(live: LiveReport | None, cluster: Cluster) -> tuple[Check[Recipe], ...]:
    """What a recipe must be for the cluster as it is now; nothing where that is not known."""
    if live is None or live.facts is None:
        return ()
    from orchestrator.submit.site.checks import live_checks

    return live_checks(cluster, live.facts)


def with_verdict(live: LiveReport | None, script: str, read: ReadRecipe, cluster: Cluster) -> LiveReport | None:
    """`live` with Slurm's estimate of the start. Raises RecipeError where Slurm itself refuses the script."""
    if live is None:
        return None
    from orchestrator.submit.live import with_start

    live = with_start(live, script, read.recipe.resources, cluster)
    if live.start is not None and live.start.refused is not None:
        read.refuse([live.start.refused])
    return live


def plan_for(
    read: ReadRecipe, cluster: Cluster, *, code_digest: str, learnt: LearntLimit | None = None, say: Say = silent
) -> Plan:
    """The plan on the allocation that the recipe asks for; where it says `micro: auto`, after a memory fit."""
    accelerator = detect_accelerator(cluster.accelerator)
    allocation = requested_allocation(read.recipe, cluster, accelerator=accelerator)
    batch_norm = batch_norm_in(read.recipe, read.folder)
    memory = None
    if read.recipe.batch.micro == "auto":
        from orchestrator.submit.fit import memory_for  # here: most plans have no use for it

        memory = memory_for(read, cluster, code_digest=code_digest, say=say)
    try:
        return make_plan(read.recipe, cluster, allocation, memory=memory, learnt=learnt, batch_norm=batch_norm)
    except RecipeError as error:
        raise RecipeError(read.document.placed(error.problems)) from None


def script_for(read: ReadRecipe, plan: Plan, cluster: Cluster, run_dir: RunDir) -> str:
    """The job script of a run; its interpreter is the one that runs now."""
    return job_script(
        read.recipe.resources,
        plan,
        cluster,
        run_dir=run_dir.path,
        python=sys.executable,
        save_s=longest_save_s(run_dir),
    )


def first_free(path: Path) -> Path:
    """`path`, or `path.1`, `path.2`, ...: the first that does not exist yet."""
    names = (path.with_name(f"{path.name}.{k}") for k in count(1))
    return next(name for name in chain((path,), names) if not name.exists())


def tracking_store(read: ReadRecipe, cwd: Path) -> dict[str, str]:
    """Where the MLflow run will live: an absolute URI, and the experiment's name."""
    tracking = read.recipe.tracking
    return {
        "uri": tracking.uri or f"sqlite:///{cwd / 'mlflow.db'}",
        "experiment": tracking.experiment or read.recipe.name,
    }


def changed_sections(before: ReadRecipe, after: ReadRecipe) -> list[str]:
    """Dotted keys of a recipe's sections that differ, `batch` by its fields."""
    old, new = before.recipe, after.recipe
    keys = [name for name in type(old).model_fields if name != "batch" and getattr(old, name) != getattr(new, name)]
    batch = [name for name in type(old.batch).model_fields if getattr(old.batch, name) != getattr(new.batch, name)]
    return keys + [f"batch.{name}" for name in batch]
