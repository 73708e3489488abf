"""What MLflow is told about a run beside its metrics: parameters, tags and artifacts, read from the run directory.

Everything that leaves here has passed the redactor.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.documents import dump_yaml, read_document
from orchestrator.errors import Problem, RunError
from orchestrator.files import read_json
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.tracking.attempts import read_history
from orchestrator.tracking.redact import Redactor, secret_values
from orchestrator.tracking.replay import clean_key
from orchestrator.tracking.report.page import report_page
from orchestrator.tracking.report.report import Report, read_report
from orchestrator.tracking.report.text import report_facts
from orchestrator.tracking.step_times import StepTimes

LOG_TAIL_BYTES = 1_000_000
_LONG_LIST = 20


@dataclass(frozen=True)
class Identity:
    """`run.json`: who this run is and where it is tracked. `created_at` in Unix seconds."""

    uid: str
    name: str
    fingerprint: str
    created_at: float
    uri: str
    experiment: str
    user: str
    git: dict[str, Any]


def read_identity(run: RunDir) -> Identity:
    """The run's identity; raises RunError where there is none."""
    try:
        value = read_json(run.run)
        return Identity(
            uid=value["uid"],
            name=value["name"],
            fingerprint=value["fingerprint"],
            created_at=float(value["created_at"]),
            uri=value["tracking"]["uri"],
            experiment=value["tracking"]["experiment"],
            user=value.get("user") or "",
            git=value.get("git") or {},
        )
    except (KeyError, TypeError, ValueError, OSError):
        problem = Problem(str(run.run), "is not the identity of a run", "name a directory made by submit")
        raise RunError(problem) from None


def read_redactor(run: RunDir) -> Redactor:
    """A redactor that knows the values of the job's own environment."""
    return Redactor(secret_values(read_json(run.environment) or {}))


FinalStatus = Literal["FINISHED", "FAILED", "KILLED"]
_STATUS: dict[str, FinalStatus] = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@dataclass(frozen=True)
class Ending:
    """How a run ended, in MLflow's words; the time in Unix milliseconds."""

    status: FinalStatus
    time_ms: int


def read_ending(run: RunDir) -> Ending | None:
    """The end of the run: its last attempt's final verdict, or a cancellation before any attempt; else None."""
    last = run.last_attempt()
    if last is None:
        cancel = read_json(run.cancel)
        return Ending("KILLED", int(cancel["requested_at"] * 1000)) if cancel else None
    verdict = read_json(last.verdict)
    if not verdict or not verdict.get("final"):
        return None
    return Ending(_STATUS.get(verdict["outcome"], "FAILED"), int(verdict["ended_at"] * 1000))


def goes_on_elsewhere(run: RunDir) -> bool:
    """Whether the last attempt's verdict names a successor: another job goes on, with a forwarder of its own."""
    last = run.last_attempt()
    return last is not None and bool((read_json(last.verdict) or {}).get("successor"))


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every leaf that holds something: `a.b`, lists as `a.0.b`; a long list of plain values is JSON."""
    if value in (None, {}, []):
        return
    if isinstance(value, dict):
        for name, child in value.items():
            yield from flatten(child, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and (len(value) <= _LONG_LIST or isinstance(value[0], dict)):
        for index, child in enumerate(value):
            yield from flatten(child, f"{key}.{index}" if key else str(index))
    else:
        yield clean_key(key), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def read_params(run: RunDir, redactor: Redactor) -> dict[str, str]:
    """The recipe's leaves by their own names, the plan's under `plan.`."""
    tree = redactor.tree(_recipe(run)) | {"plan": redactor.tree(read_json(run.plan) or {})}
    return dict(flatten(tree))


def submission_tags(run: RunDir, identity: Identity, redactor: Redactor) -> dict[str, str]:
    """What is known at submission: identity, user, source and git."""
    git = identity.git
    tags = {
        "mlflow.runName": run.path.name,
        "mlflow.user": identity.user,
        "mlflow.source.name": identity.name,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.source.git.branch": git.get("branch"),
        "mlflow.source.git.repoURL": git.get("remote"),
        "mlflow.source.git.dirty": json.dumps(git["dirty"]) if "dirty" in git else None,
        "orchestrate.run_dir": str(run.path),
    }
    told = {key: str(redactor.value(key, value)) for key, value in tags.items() if value}
    return told | {"orchestrate.run_uid": identity.uid, "orchestrate.fingerprint": identity.fingerprint}


def attempt_tags(run: RunDir, redactor: Redactor) -> dict[str, str]:
    """What the last attempt adds: job, nodes, hosts, outcome. Lists are joined with commas."""
    last = run.last_attempt()
    if last is None:
        return {}
    driver, verdict = read_json(last.driver) or {}, read_json(last.verdict) or {}
    if not verdict.get("final"):
        verdict = {}
    nodes = [node["name"] for node in (read_json(last.launch) or {}).get("nodes", [])] or driver.get("nodes", [])
    hosts = [(read_json(last.node(name)) or {}).get("host") for name in nodes]
    job_id = str(driver.get("job_id") or "")
    tags = {
        "orchestrate.attempt": str(last.number),
        "orchestrate.job_id": job_id,
        "slurm.job_id": "" if job_id.startswith("local:") else job_id,
        "orchestrate.nodes": ",".join(nodes),
        "orchestrate.hosts": ",".join(dict.fromkeys(host for host in [driver.get("host"), *hosts] if host)),
        "orchestrate.outcome": verdict.get("outcome"),
        "orchestrate.reason": verdict.get("reason"),
    }
    return {key: str(redactor.value(key, value)) for key, value in tags.items() if value}


def early_artifacts(run: RunDir, redactor: Redactor) -> Iterator[tuple[str, str]]:
    """(artifact path, text) of what stands at submission."""
    yield "config/recipe.yaml", dump_yaml(redactor.tree(_recipe(run)))
    yield from _json_artifact("config/plan.json", run.plan, redactor)
    freeze = run.snapshot / "pip-freeze.txt"
    for name, path in (("config/job.sh", run.job_script), ("environment/pip-freeze.txt", freeze)):
        text = _text(path)
        if text is not None:
            yield name, redactor.text(text)


def shown_artifacts(run: RunDir, redactor: Redactor, known: Container[str]) -> Iterator[tuple[str, str]]:
    """(artifact path, text) of what evaluations have shown, but for what is `known`."""
    for path in sorted(run.shown.glob("step-*.md")):
        text = None if f"shown/{path.name}" in known else _text(path)
        if text is not None:
            yield f"shown/{path.name}", redactor.text(text)


def final_artifacts(run: RunDir, redactor: Redactor) -> Iterator[tuple[str, str]]:
    """(artifact path, text) of what the attempts left: records, ends of the last one's logs, and the report."""
    for attempt in run.all_attempts():
        for path in (attempt.plan, attempt.launch, attempt.driver, attempt.verdict):
            yield from _json_artifact(f"attempts/{attempt.path.name}/{path.name}", path, redactor)
    last = run.last_attempt()
    if last is None:
        return
    yield from _report(run, last, redactor)
    for rank in sorted(_told_ranks(last)):
        tail = log_tail(last.rank_log(rank), LOG_TAIL_BYTES)
        if tail is not None:
            yield f"logs/rank-{rank}.log", redactor.text(tail)


def _report(run: RunDir, last: AttemptDir, redactor: Redactor) -> Iterator[tuple[str, str]]:
    """How well the run used its machines, as a page and as data; of a run that tells no steps there is nothing to say.

    A journal in which nobody finds his way is left to its readers: the run's end is told all the same.
    """
    state = str((read_json(last.verdict) or {}).get("outcome", "unknown"))
    try:
        told = read_report(run, state=state, is_at_work=False, history=read_history(run, StepTimes(run.path)))
        told = _redacted(told, redactor)
        data, page = json.dumps(report_facts(told), indent=2, ensure_ascii=False), report_page(told)
    except (OSError, ValueError, TypeError, KeyError):
        return
    if told.usage.parts:
        yield "report/report.json", data
        yield "report/report.html", page


def _redacted(told: Report, redactor: Redactor) -> Report:
    """Before it becomes markup, in which a secret might be spelt otherwise."""
    attempts = tuple(
        replace(each, reason=redactor.text(each.reason), then=each.then and redactor.text(each.then))
        for each in told.history.attempts
    )
    events = tuple(redactor.tree(dict(event)) for event in told.usage.events)
    return replace(told, history=replace(told.history, attempts=attempts), usage=replace(told.usage, events=events))


def _told_ranks(last: AttemptDir) -> set[int]:
    """Rank 0, and the rank that failed first."""
    failed = (read_json(last.verdict) or {}).get("rank")
    return {0} if failed is None else {0, failed}


def log_tail(path: Path, num_bytes: int) -> str | None:
    """The last whole lines of a log within `num_bytes`, or None where there is no log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - num_bytes))
            data = file.read(num_bytes)
    except FileNotFoundError:
        return None
    return (data if size <= num_bytes else data.partition(b"\n")[2]).decode(errors="replace")


def _json_artifact(name: str, path: Path, redactor: Redactor) -> Iterator[tuple[str, str]]:
    value = read_json(path)
    if value is not None:
        yield name, json.dumps(redactor.tree(value), indent=2, ensure_ascii=False) + "\n"


def _recipe(run: RunDir) -> dict[str, Any]:
    return dict(read_document(run.recipe, RunError).data)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
