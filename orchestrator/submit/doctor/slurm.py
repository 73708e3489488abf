"""Slurm, as the doctor looks at it: reachable, which cluster, with accounting or not, and its clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime

from orchestrator.errors import SubmissionError
from orchestrator.submit.commands import find_program
from orchestrator.submit.doctor.finding import Finding, Patient, Status, clock_finding
from orchestrator.submit.doctor.probe import skew_of
from orchestrator.submit.site.facts import Config, SlurmFacts
from orchestrator.submit.site.questions import Questions

SLURM_TIMEOUT_S = 5.0
_STORAGE = re.compile(r"^AccountingStorageType\s*=\s*(\S+)", re.MULTILINE)
_AS_OF = re.compile(r"^Configuration data as of (\S+)", re.MULTILINE)
_NO_STORAGE = ("", "(null)", "accounting_storage/none")


def slurm_findings(patient: Patient) -> Iterator[Finding]:
    """A Slurm that is not there is a problem where the profile is a Slurm site's."""
    if not patient.uses_slurm and find_program("scontrol") is None:
        yield Finding("slurm", "ok", "none here, and none needed: runs start on this machine")
        return
    try:
        questions = Questions(patient.cluster.slurm_conf, timeout_s=SLURM_TIMEOUT_S)
        config = questions.config()
        before_s = time.time()
        text = questions.ask("scontrol", "show", "config")
        after_s = time.time()
        facts, why = questions.facts(config, accounting=True)
    except SubmissionError as error:
        problem = error.problems[0]
        late = problem.what.startswith("no answer")
        status: Status = "unknown" if late else "problem" if patient.uses_slurm else "warning"
        yield Finding("slurm", status, f"{problem.where}: {problem.what}", problem.fix)
        return
    yield _reached(config, facts, patient)
    yield _accounting(config, text, facts, why)
    as_of = _AS_OF.search(text)
    if as_of is not None:
        yield from _clock(as_of[1], before_s, after_s)


def _reached(config: Config, facts: SlurmFacts, patient: Patient) -> Finding:
    down = sum(node.down for node in facts.nodes)
    nodes = f"{len(facts.nodes)} nodes, {down} of them out of service"
    seen = f"cluster {config.cluster_name!r}, Slurm {config.version}, {nodes}"
    wanted = patient.cluster.slurm_cluster
    if patient.uses_slurm and wanted not in (None, config.cluster_name):
        fix = f"log in to a node of {wanted!r}, or give the profile of this one (orchestrate cluster discover)"
        return Finding("slurm", "problem", f"{seen}; the profile is for {wanted!r}", fix)
    missing = sorted(set(patient.cluster.partitions) - set(facts.partitions)) if patient.uses_slurm else []
    if missing:
        fix = "write the profile anew: orchestrate cluster discover"
        return Finding("slurm", "warning", f"{seen}; the profile's {', '.join(missing)} are no partitions of it", fix)
    return Finding("slurm", "ok", seen)


def _accounting(config: Config, text: str, facts: SlurmFacts, why: str) -> Finding:
    stored = _STORAGE.search(text)
    if stored is None or stored[1] in _NO_STORAGE:
        seen = "none: how a job ended is known for some minutes only, and accounts mean nothing"
        return Finding("accounting", "ok", seen)
    if why:
        return Finding("accounting", "unknown", why, "is slurmdbd up? jobs are taken meanwhile by what it said last")
    if not config.enforces_accounts:
        return Finding("accounting", "ok", f"{stored[1].rpartition('/')[2]}, not enforced: any account is taken")
    accounts = sorted({one.account for one in facts.associations or ()})
    if not accounts:
        fix = "ask who runs the cluster for an account"
        return Finding("accounting", "problem", "enforced, and you have no account: sbatch will refuse", fix)
    enforced = ", ".join(sorted(config.enforce))
    return Finding("accounting", "ok", f"enforced ({enforced}); your accounts: {', '.join(accounts)}")


def _clock(as_of: str, before_s: float, after_s: float) -> Iterator[Finding]:
    """The controller's time stands in its answer, cut to whole seconds, in this machine's time zone."""
    try:
        stamp = datetime.fromisoformat(as_of).timestamp()
    except ValueError:
        return
    yield clock_finding("clock of slurm", skew_of(stamp, before_s - 1.0, after_s), "Slurm's controller")
