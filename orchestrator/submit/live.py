"""The cluster as it is now, before anything is submitted: what it refuses, and when it would start.

A Slurm that does not answer, or is another one than the profile's, is unknown, not wrong: the plan goes on by the
profile alone and says what was not checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.cluster import Cluster
from orchestrator.errors import Problem, SubmissionError
from orchestrator.plan.resources import partition_name
from orchestrator.plan.shape_options import SAME_START_S
from orchestrator.recipe.schema import Resources
from orchestrator.submit.commands import run_command
from orchestrator.submit.site.checks import nodes_that_fit
from orchestrator.submit.site.facts import SlurmFacts
from orchestrator.submit.site.questions import Questions, reason
from orchestrator.submit.slurm import clean_environment, is_no_verdict, one_line, refusal

LOOK_TIMEOUT_S = 5.0
ESTIMATE_TIMEOUT_S = 5.0
AT_ONCE = timedelta(seconds=SAME_START_S)
_START = re.compile(r"[Jj]ob \d+ to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


@dataclass(frozen=True)
class Unchecked:
    """Something that could not be held against the cluster, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class StartEstimate:
    """When Slurm would start a job: `start` in this machine's local time, or None with the reason in `text`."""

    start: datetime | None
    text: str
    refused: Problem | None = None
    """Slurm's refusal of the script, its `where` a dotted key of the recipe."""


@dataclass(frozen=True)
class LiveReport:
    """One look at the cluster: `facts` are None when it could not be asked."""

    facts: SlurmFacts | None = None
    unchecked: tuple[Unchecked, ...] = ()
    start: StartEstimate | None = None

    def as_json(self) -> dict[str, Any]:
        """{start: {at: ISO time or null, text} or null, unchecked: [{what, why}]}."""
        at = self.start.start if self.start else None
        start = {"at": at.astimezone().isoformat() if at else None, "text": self.start.text} if self.start else None
        return {"start": start, "unchecked": [{"what": one.what, "why": one.why} for one in self.unchecked]}


def look(cluster: Cluster) -> LiveReport:
    """Ask the profile's Slurm, in 5 s at most, what it has and what this user may."""
    try:
        questions = Questions(cluster.slurm_conf, timeout_s=LOOK_TIMEOUT_S)
        config = questions.config()
        if cluster.slurm_cluster not in (None, config.cluster_name):
            why = f"the Slurm here is {config.cluster_name!r}, the profile is for {cluster.slurm_cluster!r}"
            return _unknown(why)
        facts, why = questions.facts(config, accounting=True)
    except SubmissionError as error:
        return _unknown(reason(error))
    return LiveReport(facts, (Unchecked("account, qos", why),) if why else ())


def _unknown(why: str) -> LiveReport:
    return LiveReport(unchecked=(Unchecked("account, qos, live limits", why),))


def with_start(report: LiveReport, script: str, resources: Resources, cluster: Cluster) -> LiveReport:
    """`report` with Slurm's own verdict on the very script, its estimate of the start, and what it does not show.

    `sbatch --test-only` finds no node configuration also where a job only has to wait for nodes that are down, drained
    or reserved now (seen with Slurm 22.05): that is no refusal.
    """
    if report.facts is None:
        return report
    unchecked = (*report.unchecked, *_unseen(resources, cluster, report.facts))
    start = start_estimate(script, cluster)
    refused = start.refused
    if refused is not None and "node configuration" in refused.what:
        fit = nodes_that_fit(resources, cluster, report.facts)
        free = sum(node.free_for_all for node in fit)
        if free < resources.num_nodes <= len(fit):
            text = f"no estimate: only {free} of the {len(fit)} nodes that fit are in service and not reserved"
            start = StartEstimate(None, text)
        else:
            fix = f"{refused.fix}; or add --offline to submit it all the same"
            start = replace(start, refused=replace(refused, fix=fix))
    return replace(report, start=start, unchecked=unchecked)


def _unseen(resources: Resources, cluster: Cluster, facts: SlurmFacts) -> Iterator[Unchecked]:
    """What was not held against the cluster because this user is not shown it (PrivateData), or it reads strangely."""
    name = partition_name(resources, cluster)
    nodes = facts.nodes_of(name or "")
    if name is None or not facts.partitions:
        why = "Slurm shows no partitions" if name else "neither the recipe nor the profile names a partition"
        yield Unchecked("partition, its limits and nodes", why)
    elif not nodes:
        yield Unchecked("nodes, GPUs, CPU cores, memory, constraint", f"Slurm shows no nodes in {name!r}")
    strange = [node.name for node in nodes if node.gpus is None]
    if strange and cluster.gpu_request != "none":
        yield Unchecked("GPUs", f"what Slurm says of those of {', '.join(strange)} is not understood (Gres)")


def start_estimate(script: str, cluster: Cluster) -> StartEstimate:
    """What `sbatch --test-only` says of a script, submitting nothing. May be called from several threads at once."""
    env = clean_environment(os.environ, cluster.slurm_conf)
    try:
        done = run_command(("sbatch", "--test-only"), timeout_s=ESTIMATE_TIMEOUT_S, env=env, text=script)
    except SubmissionError as error:
        return StartEstimate(None, f"no estimate: {reason(error)}")
    said = done.stderr + done.stdout
    if done.returncode:
        if is_no_verdict(said):
            return StartEstimate(None, f"no estimate: {one_line(said)}")
        refused = refusal(said)
        return StartEstimate(None, refused.what, refused)
    try:
        start = datetime.fromisoformat(match[1] if (match := _START.search(said)) else "")
    except ValueError:
        return StartEstimate(None, "no estimate from Slurm")
    return StartEstimate(start, start_text(start, now=datetime.now()))


def start_text(start: datetime, *, now: datetime) -> str:
    """'at once', 'about 14:05', or with the day where that is not today."""
    if start - now <= AT_ONCE:
        return "at once (Slurm's estimate)"
    day = "" if start.date() == now.date() else f"{start:%a} {start.day} {start:%b} "
    year = "" if start.year == now.year else f"{start.year} "
    return f"about {day}{year}{start:%H:%M} (Slurm's estimate)"
