"""Why a run ended and the one thing to do next, as people read it. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.causes import in_words, with_reason
from orchestrator.cli.render.attempts import attempts_screen, slow_ranks
from orchestrator.cli.render.runs import step_text
from orchestrator.submit.why import Explanation
from orchestrator.tracking.attempt_text import ratio_text

_RESUME = "orchestrate resume {run}"
_ANEW = "since a resume keeps code and recipe as they were submitted: orchestrate submit {recipe}"

NEXT_BY_CAUSE = {
    "done": "look at its curves: {tracked_at}",
    "asked": f"{{go_on}}: {_RESUME}",
    "cancelled": f"{{go_on}}: {_RESUME}",
    "preempted": f"{{go_on}}: {_RESUME}",
    "time_limit": f"{{go_on}}: {_RESUME}",
    "user_code": f"fix it and submit it anew, {_ANEW}",
    "device_memory": f"{{go_on}}, where a rank has more memory: {_RESUME} --set {{more_memory}}",
    "host_memory": f"{{go_on}}, with more memory a node: {_RESUME} --set resources.memory=SIZE",
    "node_lost": f"{{go_on}}, on nodes that work: {_RESUME}",
    "killed": f"{{go_on}}, and if it is killed again, with more resources.memory: {_RESUME}",
    "hung": f"{{go_on}}, and if it hangs there again, look for why in the code: {_RESUME}",
    "network": f"{{go_on}}: {_RESUME}",
    "non_finite": f"lower optimizer.lr or set on_non_finite_loss, and submit it anew, {_ANEW}",
    "disk_full": f"make room on that disk, then {{go_on}}: {_RESUME}",
    "failed_check": f"have {{node}} put right, or name other nodes, then {{go_on}}: {_RESUME}",
    "launch": "see what the job said: orchestrate logs {run} --job",
    "unknown": "see what it said: orchestrate logs {run}{logs}",
}
"""What to do about each cause of a verdict."""

NEXT_BY_STATE = {
    "prepared": "start it: {start}",
    "pending": "see whether it still waits: orchestrate status {run}",
    "running": "see how it goes: orchestrate logs -f {run}",
    "unknown": "ask again in a while: orchestrate status {run}",
    "lost": "see what the job said last: orchestrate logs {run} --job",
}
"""What to do about a run that has no verdict."""

_STATES = {
    "prepared": "prepared, not handed to the scheduler",
    "pending": "pending: it waits in the scheduler's queue",
    "unknown": "unknown: the scheduler does not answer, or does not know the job",
    "lost": "lost: the job has ended and left no verdict",
}


def why_screen(told: Explanation) -> str:
    """The state, why it ended, what shows it, slow ranks, its attempts if there were several, and what to do next."""
    rows = [("run", f"{told.status.name}: {_state(told)}")]
    if why := _why(told):
        rows.append(("why" if _is_over(told) else "before", why))
    rows += _block("shown by", told.shown)
    rows += _block("slow", slow_ranks(told.history, told.status.state))
    if len(told.history.attempts) > 1:
        rows += _block("attempts", attempts_screen(told.history, told.status.state).splitlines())
    elif ratio := ratio_text(told.history):
        rows.append(("time", ratio))
    rows.append(("next", next_step(told)))
    return "".join(f"{label:<11}{text}".rstrip() + "\n" for label, text in rows)


def why_facts(told: Explanation) -> dict[str, Any]:
    """The same as data."""
    status = {key: value for key, value in asdict(told.status).items() if key not in ("reason", "metrics")}
    return {
        **status,
        "cause": told.cause,
        "in_words": None if told.cause is None else in_words(told.cause),
        "reason": told.reason,
        "shown": list(told.shown),
        "next": next_step(told),
        **told.history.as_json(),
    }


def next_step(told: Explanation) -> str:
    """The one thing to do next, with the command that does it."""
    status = told.status
    if _is_over(told):
        text = NEXT_BY_CAUSE.get(told.cause or "", NEXT_BY_CAUSE["unknown"])
    else:
        text = NEXT_BY_STATE[status.state]
    return text.format(
        run=told.word,
        start=f"{'sbatch' if told.scheduler == 'slurm' else 'bash'} {status.run_dir}/job.sh",
        recipe=told.recipe,
        tracked_at=told.tracked_at,
        node=told.node or "the node",
        go_on="go on" if told.checkpoint_step is None else f"go on from step {told.checkpoint_step}",
        more_memory="resources.memory=SIZE" if told.accelerator == "cpu" else "resources.gpu_type=TYPE",
        logs=(f" --rank {told.rank}" if told.rank else "") if told.has_output else " --job",
    )


def _is_over(told: Explanation) -> bool:
    return told.status.state not in NEXT_BY_STATE


def _state(told: Explanation) -> str:
    status = told.status
    if told.status.state == "stopped" and told.cause == "cancelled":
        return "cancelled"
    if status.state == "running":
        at_step = "" if status.step is None else f", at step {step_text(status)}"
        return f"running in job {status.job_id}{at_step}"
    return _STATES.get(status.state, status.state)


def _why(told: Explanation) -> str:
    if told.cause is None:
        return ""
    text = with_reason(told.cause, told.reason)
    then = told.history.attempts[-1].then if told.history.attempts else None
    return f"{text}; then {then}" if then else text


def _block(label: str, lines: list[str] | tuple[str, ...]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", line) for index, line in enumerate(lines)]
