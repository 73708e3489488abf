"""How an attempt ended and why: one pure function of what it left behind.

torchrun turns every exit status of a rank into 1, after a clean save too. So the outcome is read from files, and the
cause from whoever failed first: errors of ranks that only noticed that another one was gone come last.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.failure_kinds import LOADER_KILLED, PEER_LOST
from orchestrator.hang import first_to_hang
from orchestrator.job.evidence import NO_ROOM, NODES_FAILED, Evidence, RankError
from orchestrator.job.log_lines import error_line, last_lines
from orchestrator.job.verdict import Cause, OutOfMemory, Verdict
from orchestrator.out_of_memory import OUT_OF_MEMORY, says_out_of_memory

NO_SESSION = (
    "the command opened no session, or did not end it; use orchestrator.worker.session, or take the datasets away"
)
"""What it means that a command beside datasets has ended well and left nothing."""

CAUSE_OF_KIND: dict[str, Cause] = {
    OUT_OF_MEMORY: "device_memory",
    PEER_LOST: "network",
    LOADER_KILLED: "killed",
    "DistBackendError": "network",
    "DistNetworkError": "network",
    "DistStoreError": "network",
    "NonFiniteError": "non_finite",
    NO_ROOM: "disk_full",
    "LaunchError": "launch",
}
"""What a rank's error means, by its type; every other one is the user's code's."""


@dataclass(frozen=True)
class _Finding:
    cause: Cause
    reason: str
    rank: int | None = None
    node: str | None = None
    memory: OutOfMemory | None = None
    step: int | None = None
    failed_nodes: tuple[str, ...] = ()


def judge(evidence: Evidence, log_of: Callable[[int], str]) -> Verdict:
    """The verdict on an attempt; `log_of(rank)` is the end of that rank's log, and is asked of one rank at most."""
    done, stop = evidence.done, evidence.stop
    if done is not None:
        reason = f"trained to the end: step {done.get('step')}"
        return Verdict("done", reason, step=done.get("step"), metrics=done.get("metrics"), cause="done")
    if stop is not None and evidence.met_deadline:
        reason = f"saved at step {stop.get('step')}, as the job's time was nearly up"
        return Verdict("stopped", reason, step=stop.get("step"), cause=evidence.job_end or "time_limit")
    if stop is not None and not evidence.failed_unasked:
        reason = f"saved at step {stop.get('step')} after {stop.get('signal')}"
        return Verdict("stopped", reason, step=stop.get("step"), cause=evidence.job_end or "asked")
    torchrun_failed = any(node.exit_code for node in evidence.nodes)
    if evidence.is_command and evidence.exit_code == 0 and not torchrun_failed:
        return Verdict("done", "the command ended with exit code 0 on every rank", cause="done")
    verdict = _failed(_finding(evidence), log_of, is_command=evidence.is_command)
    saved_at = None if stop is None else stop.get("step")
    return replace(verdict, step=saved_at, asked_by=evidence.asked_by, lost_nodes=evidence.lost_nodes)


def _failed(found: _Finding, log_of: Callable[[int], str], *, is_command: bool) -> Verdict:
    lines = () if found.rank is None else last_lines(log_of(found.rank))
    reason, cause, memory = found.reason, found.cause, found.memory
    if reason.endswith("exit code 1") and (told := error_line(lines)):
        reason = f"{reason}: {told}"
        if says_out_of_memory(told):
            cause, memory = "device_memory", OutOfMemory(is_command=is_command)
    return Verdict(
        "failed",
        reason,
        found.rank,
        found.node,
        lines,
        out_of_memory=memory,
        cause=cause,
        failed_step=found.step,
        failed_nodes=found.failed_nodes,
    )


def _finding(evidence: Evidence) -> _Finding:
    """The first of these that explains the failure."""
    return (
        _failed_check(evidence)
        or _failed_preflight(evidence)
        or _full_disk(evidence)
        or _out_of_memory(evidence)
        or _lost_node(evidence)
        or _hang(evidence)
        or _killed_node(evidence)
        or _cut_off_node(evidence)
        or _killed_torchrun(evidence)
        or _killed_rank(evidence)
        or _told_by_rank(evidence)
        or _seen_by_torchrun(evidence)
        or _asked(evidence)
        or _silent_node(evidence)
        or _ended(evidence)
    )


def _failed_check(evidence: Evidence) -> _Finding | None:
    """Of several nodes the first is told, and all are to blame."""
    failed = [node for node in evidence.nodes if node.failed_check]
    if not failed:
        return None
    names, first = tuple(node.name for node in failed), failed[0]
    reason = f"{first.name}: check of the {first.failed_check}"
    return _Finding("failed_check", reason, node=first.name, failed_nodes=names)


def _failed_preflight(evidence: Evidence) -> _Finding | None:
    """All ranks say the same, and end by it."""
    for error in evidence.errors:
        if error.kind == NODES_FAILED and error.nodes:
            return _Finding("failed_check", error.message, node=error.nodes[0], failed_nodes=error.nodes)
    return None


def _full_disk(evidence: Evidence) -> _Finding | None:
    """Unless a rank tells of something else: who is silent may have had no room for a word."""
    if evidence.no_room is None or any(error.kind not in (PEER_LOST, NO_ROOM) for error in evidence.errors):
        return None
    return _Finding("disk_full", f"the run directory cannot be written any more: {evidence.no_room}")


def _out_of_memory(evidence: Evidence) -> _Finding | None:
    """A rank that said so: whatever befell others comes of it, or would come again."""
    told = [error for error in evidence.errors if error.kind == OUT_OF_MEMORY]
    first = min(told, key=lambda error: error.time, default=None)
    if first is None:
        return None
    memory = first.memory and replace(first.memory, opens_session=evidence.opens_session)
    return replace(_of_error(evidence, first), memory=memory)


def _lost_node(evidence: Evidence) -> _Finding | None:
    lost = evidence.lost_nodes
    if not lost:
        return None
    return _Finding("node_lost", f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} lost", node=lost[0])


def _hang(evidence: Evidence) -> _Finding | None:
    """Where several hung, the one that the others wait for; it may be on a node that had no time to say so, and one
    whose supervisor says nothing at all is the cause."""
    if not any(node.hang for node in evidence.nodes):
        return None
    if silent := _silent_node(evidence):
        return silent
    hang = first_to_hang(hang for node in evidence.nodes if (hang := node.hang or node.silent))
    shown = f", see {hang.stack}" if hang.stack else ""
    what = f" gave no sign of life for {hang.silent_s:.0f} s in its {hang.phase}{shown}"
    has_begun = hang.step or hang.phase not in ("start", "preflight")
    return replace(_of_rank(evidence, hang.rank, "hung", what), step=hang.step + 1 if has_begun else None)


def _killed_node(evidence: Evidence) -> _Finding | None:
    for name in evidence.killed_nodes:
        return _Finding("killed", f"the supervisor of {name} was {_killed(evidence.exit_code)}", node=name)
    return None


def _killed_torchrun(evidence: Evidence) -> _Finding | None:
    for node in evidence.nodes:
        if node.exit_code is not None and node.exit_code < 0 and node.exit_code != -signal.SIGTERM:
            return _Finding("killed", f"torchrun on {node.name} was {_killed(node.exit_code)}", node=node.name)
    return None


def _killed_rank(evidence: Evidence) -> _Finding | None:
    """A rank that died of a signal wrote no error, but the others' errors come of it."""
    told = {error.rank for error in evidence.errors if error.kind != PEER_LOST}
    for rank, exit_code in _failed_ranks(evidence):
        if exit_code < 0 and exit_code != -signal.SIGTERM and rank not in told:
            oom_kills = _kills_beside(evidence, rank)
            cause: Cause = "host_memory" if oom_kills and exit_code == -signal.SIGKILL else "killed"
            return _of_rank(evidence, rank, cause, f" was {_killed(exit_code, oom_kills)}")
    return None


def _kills_beside(evidence: Evidence, rank: int) -> int:
    """What the kernel killed for want of memory on the node of a rank."""
    node = rank // evidence.gpus_per_node
    return evidence.nodes[node].oom_kills if node < len(evidence.nodes) else 0


def _told_by_rank(evidence: Evidence) -> _Finding | None:
    first = min(evidence.errors, key=lambda error: (error.kind == PEER_LOST, error.time), default=None)
    return None if first is None else _of_error(evidence, first)


def _seen_by_torchrun(evidence: Evidence) -> _Finding | None:
    for rank, exit_code in _failed_ranks(evidence):
        ended = f"was {_killed(exit_code)}" if exit_code < 0 else f"ended with exit code {exit_code}"
        return _of_rank(evidence, rank, "killed" if exit_code < 0 else "user_code", f" {ended}")
    return None


def _asked(evidence: Evidence) -> _Finding | None:
    if evidence.asked_by is None:
        return None
    missing = "the command left no stop.json" if evidence.is_command else "the ranks ended before they had saved"
    return _Finding(evidence.job_end or "asked", f"asked to stop ({evidence.asked_by}), but {missing}")


def _silent_node(evidence: Evidence) -> _Finding | None:
    """A supervisor that fell silent; one that never wrote counts only when none did."""
    if evidence.exit_code == 0:
        return None
    for name in evidence.silent_nodes:
        return _Finding("killed", f"the supervisor of {name} fell silent", node=name)
    for node in evidence.nodes:
        if node.state is None:
            reason = f"the supervisor of {node.name} did not start; see the job's log"
            return _Finding("launch", reason, node=node.name)
    return None


def _cut_off_node(evidence: Evidence) -> _Finding | None:
    """A supervisor that had not said that it ends, when all others had: it was killed, by whomever."""
    cut_off = [node for node in evidence.nodes if node.was_cut_off]
    if evidence.exit_code == 0 or len(cut_off) != 1 or len(evidence.nodes) == 1:
        return None
    return _Finding("killed", f"the supervisor of {cut_off[0].name} was killed", node=cut_off[0].name)


def _ended(evidence: Evidence) -> _Finding:
    for node in evidence.nodes:
        if node.exit_code:
            return _Finding("unknown", f"torchrun failed on {node.name}; see its log")
    if evidence.exit_code == 0:
        missing = "every rank ended with exit code 0, but rank 0 left no done.json"
        return _Finding("user_code", f"{missing}: {NO_SESSION}" if evidence.opens_session else missing)
    if evidence.exit_code < 0:
        return _Finding("killed", f"the step was {_killed(evidence.exit_code)}")
    return _Finding("unknown", f"the step ended with exit code {evidence.exit_code}")


def _failed_ranks(evidence: Evidence) -> list[tuple[int, int]]:
    return [failed for node in evidence.nodes for failed in node.failed_ranks]


def _of_error(evidence: Evidence, error: RankError) -> _Finding:
    cause = CAUSE_OF_KIND.get(error.kind, "user_code")
    if error.kind == LOADER_KILLED and _kills_beside(evidence, error.rank):
        cause = "host_memory"
    return replace(_of_rank(evidence, error.rank, cause, f": {error.message}"), step=error.step)


def _of_rank(evidence: Evidence, rank: int, cause: Cause, what: str) -> _Finding:
    index = rank // evidence.gpus_per_node
    node = evidence.nodes[index].name if index < len(evidence.nodes) else None
    place = f"rank {rank}" if node is None else f"rank {rank} on {node}"
    return _Finding(cause, f"{place}{what}", rank, node)


def _killed(exit_code: int, oom_kills: int = 0) -> str:
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    if hint and oom_kills:
        hint = " while the kernel killed for want of host memory: raise resources.memory, or lower loader.workers"
    return f"killed by {name}{hint}"
