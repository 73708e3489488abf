"""The shapes of a recipe with what only this moment knows: when Slurm would start each, and how fast it ran before.

Slurm is asked about all shapes at once and for a bounded time; what it does not answer stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.cluster import Cluster
from orchestrator.errors import ClusterError, Problem, RecipeError, SubmissionError
from orchestrator.machine import detect_accelerator
from orchestrator.plan.memory import MemoryPlan
from orchestrator.plan.resources import check_resources
from orchestrator.plan.shape_options import ShapeOption, plan_shapes, ranked
from orchestrator.plan.shapes import Shape, left_out, shaped
from orchestrator.profile import read_profile
from orchestrator.recipe.code_facts import batch_norm_in, not_looked_into
from orchestrator.recipe.read import ReadRecipe, read_recipe
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.targets import target_checks
from orchestrator.run_dir import RunDir
from orchestrator.submit.commands import Say
from orchestrator.submit.live import AT_ONCE, StartEstimate, look, with_start
from orchestrator.submit.prepare import script_for
from orchestrator.submit.shapes.throughput import Measurement, hardware_of, measurements, speed_of
from orchestrator.submit.site.checks import live_problems
from orchestrator.submit.site.facts import SlurmFacts
from orchestrator.submit.snapshot import take_snapshot

ASK_TIMEOUT_S = 10.0
"""For the start estimates of all shapes together; those that come later stay unknown."""
_LATE = StartEstimate(None, f"no answer within {ASK_TIMEOUT_S:g} s")
_AT_A_TIME = 8


@dataclass(frozen=True)
class ShapeTable:
    """The shapes of a recipe on a site, best first, as things stood at `asked_at` (local time)."""

    read: ReadRecipe
    options: tuple[ShapeOption, ...]
    asked_at: datetime
    asked: bool
    """Slurm was asked when each of them would start."""
    unanswered: str
    """Why it did not say for some or for all of them; '' where it did."""
    sources: tuple[Measurement, ...]
    """The earlier attempts that speeds come from."""
    left_out: Mapping[str, str]
    """Partitions that cannot run the recipe at all, each with the reason."""
    accelerator: str
    not_looked_into: tuple[str, ...]
    """What else may hold a BatchNorm of the model's: packages, by name, or the command."""

    @property
    def own(self) -> ShapeOption:
        """The shape that the recipe itself asks for."""
        return next(option for option in self.options if option.is_own)

    @property
    def changes_science(self) -> bool:
        """Whether the effective batch, and the lr with it, is another one on every world (`batch.per_gpu`)."""
        return self.read.recipe.batch.per_gpu is not None

    @property
    def has_starts(self) -> bool:
        """Whether Slurm said of any shape when it would start."""
        return any(option.wait_s is not None for option in self.options)

    def start_of(self, option: ShapeOption) -> datetime | None:
        """When Slurm would start it."""
        return None if option.wait_s is None else self.asked_at + timedelta(seconds=option.wait_s)

    def end_of(self, option: ShapeOption) -> datetime | None:
        """When the run would end on it: the start and the duration."""
        return None if option.end_s is None else self.asked_at + timedelta(seconds=option.end_s)


def list_shapes(
    recipe_path: Path, *, overrides: Sequence[str], profile: Path | None, cwd: Path, offline: bool, say: Say
) -> ShapeTable:
    """Plan a recipe on the shapes that a site offers. With `offline` Slurm is not asked when they would start.

    Raises ClusterError for a profile without partitions, RecipeError where no shape can run the recipe at all.
    """
    cluster = _site(profile)
    read = read_recipe(recipe_path, overrides, checks=target_checks(recipe_path.parent))
    accelerator = detect_accelerator(cluster.accelerator)
    options = plan_shapes(
        read.recipe,
        cluster,
        accelerator=accelerator,
        batch_norm=batch_norm_in(read.recipe, read.folder),
        memory_of=_memory_of(read, cluster, say),
    )
    if all(option.plan is None for option in options):
        read.refuse(check_resources(read.recipe.resources, cluster))
        read.refuse([Problem("resources", f"no shape in {cluster.name} can run it: {options[-1].why_not}")])
    asked_at = datetime.now().astimezone()
    asked, unanswered = not offline and cluster.scheduler == "slurm", ""
    if asked:
        options, unanswered = _with_starts(options, read, cluster, cwd=cwd, asked_at=asked_at)
    options, sources = _with_speeds(options, measurements(read.recipe, cwd=cwd), cluster, accelerator)
    return ShapeTable(
        read=read,
        options=tuple(ranked(options)),
        asked_at=asked_at,
        asked=asked,
        unanswered=unanswered,
        sources=sources,
        left_out=left_out(read.recipe, cluster),
        accelerator=accelerator,
        not_looked_into=not_looked_into(read.recipe, read.folder),
    )


def _site(profile: Path | None) -> Cluster:
    cluster = None if profile is None else read_profile(profile)
    if cluster is None or not cluster.partitions:
        what = "this machine has no partitions to choose from" if cluster is None else "it has no partitions"
        fix = "add --cluster PROFILE; `orchestrate cluster discover` writes the profile of a Slurm"
        raise ClusterError(Problem(str(profile or "--shapes"), what, fix))
    return cluster


def _memory_of(read: ReadRecipe, cluster: Cluster, say: Say) -> Callable[[Recipe], MemoryPlan | None]:
    """Which micro-batch fits the GPUs of a shape, where the recipe says `micro: auto`: one fit for each size of GPU."""
    if read.recipe.batch.micro != "auto":
        return lambda recipe: None
    from orchestrator.submit.fit import memory_for, memory_of_rank

    digest = take_snapshot(read.folder).without(Path(read.document.source).name)
    known: dict[tuple[str, int], MemoryPlan] = {}

    def memory_of(recipe: Recipe) -> MemoryPlan:
        here = replace(read, recipe=recipe)
        rank = memory_of_rank(here, cluster)
        if rank not in known:
            known[rank] = memory_for(here, cluster, code_digest=digest, say=say)
        return known[rank]

    return memory_of


def _with_speeds(
    options: Sequence[ShapeOption], measured: Sequence[Measurement], cluster: Cluster, accelerator: str
) -> tuple[list[ShapeOption], tuple[Measurement, ...]]:
    """The options with what earlier runs say of their speed, and those runs, each once."""
    found: list[ShapeOption] = []
    sources: dict[Measurement, None] = {}
    for option in options:
        speed = None
        if option.plan is not None:
            speed = speed_of(option.plan, hardware_of(cluster, option.shape.partition, accelerator), measured)
        if speed is not None:
            sources |= dict.fromkeys(speed.sources)
            option = replace(option, samples_per_s=speed.samples_per_s, is_measured=speed.is_measured)
        found.append(option)
    return found, tuple(sources)


def _with_starts(
    options: Sequence[ShapeOption], read: ReadRecipe, cluster: Cluster, *, cwd: Path, asked_at: datetime
) -> tuple[list[ShapeOption], str]:
    """The options with Slurm's start estimates and refusals; and why it gave none, '' where each has one."""
    report = look(cluster)
    if report.facts is None:
        return list(options), report.unchecked[0].why
    checked = [_checked(option, read, cluster, report.facts) for option in options]
    run_dir = RunDir(cwd / "runs" / read.recipe.name)

    def ask(option: ShapeOption) -> StartEstimate | None:
        here = replace(read, recipe=shaped(read.recipe, option.shape))
        assert option.plan is not None, "an exact shape has a plan"
        script = script_for(here, option.plan, cluster, run_dir)
        return with_start(report, script, here.recipe.resources, cluster).start

    pool = ThreadPoolExecutor(max_workers=_AT_A_TIME)
    asked = {option.shape: pool.submit(ask, option) for option in checked if option.is_exact}
    done, _ = wait(asked.values(), timeout=ASK_TIMEOUT_S)
    pool.shutdown(wait=False, cancel_futures=True)
    answers = {shape: future.result() if future in done else _LATE for shape, future in asked.items()}
    untold = (answer for answer in answers.values() if answer and answer.start is None and answer.refused is None)
    why = next((answer.text.removeprefix("no estimate: ") for answer in untold), "")
    return [_answered(option, answers.get(option.shape), asked_at) for option in checked], why


def _checked(option: ShapeOption, read: ReadRecipe, cluster: Cluster, facts: SlurmFacts) -> ShapeOption:
    """The option with what the Slurm of `facts` would never give, whatever `sbatch --test-only` says."""
    if not option.is_exact:
        return option
    problems = live_problems(shaped(read.recipe, option.shape).resources, cluster, facts)
    return replace(option, why_not=problems[0].what) if problems else option


def _answered(option: ShapeOption, answer: StartEstimate | None, asked_at: datetime) -> ShapeOption:
    if answer is None:
        return option
    if answer.refused is not None:
        return replace(option, why_not=answer.refused.what)
    if answer.start is None:
        return option
    waits = answer.start.astimezone() - asked_at
    return replace(option, wait_s=0.0 if waits <= AT_ONCE else waits.total_seconds())


def soonest(table: ShapeTable) -> ShapeOption:
    """The shape that starts first, or ends first where ends can be compared, among those on which the run is the same.

    Raises RecipeError where the choice would change the science or there is none, ClusterError where Slurm was not to
    be asked, SubmissionError where it did not answer.
    """
    if table.changes_science:
        what = "the effective batch would follow the shape that happens to start first"
        table.read.refuse([Problem("batch.per_gpu", what, "write batch.effective, or submit without --soonest")])
    fix = "submit without --soonest"
    best = table.options[0]
    if not table.asked:
        raise ClusterError(Problem("--soonest", "there is no Slurm to ask when a job would start", fix))
    if not best.is_exact:
        raise RecipeError(Problem("--soonest", f"no shape can run this recipe as it is: {best.why_not}", fix))
    if best.wait_s is None:
        why = table.unanswered or "Slurm gave no estimate"
        raise SubmissionError(Problem("--soonest", f"no start is known: {why}", fix))
    return best


def as_overrides(shape: Shape) -> tuple[str, ...]:
    """What `--set` would say to ask for `shape`."""
    return (
        f"resources.num_nodes={shape.num_nodes}",
        f"resources.gpus_per_node={shape.gpus_per_node}",
        f"resources.partition={shape.partition}",
    )
