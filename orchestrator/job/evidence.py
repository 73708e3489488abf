"""What an attempt left behind, read from its directory for the judge."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.cluster import Allocation
from orchestrator.files import read_json
from orchestrator.job.verdict import Evidence, NodeReport, OutOfMemory, RankError
from orchestrator.out_of_memory import OUT_OF_MEMORY
from orchestrator.run_dir import AttemptDir

_ERROR_FILE = re.compile(r"error-\d+\.json")
_LOG_TAIL_BYTES = 64 * 1024


def gather(
    attempt: AttemptDir,
    allocation: Allocation,
    *,
    exit_code: int,
    is_command: bool,
    asked: str | None,
    killed_nodes: tuple[str, ...],
) -> Evidence:
    """Everything about an attempt whose step has ended. A damaged file counts as none."""
    return Evidence(
        exit_code=exit_code,
        nodes=tuple(_node_report(attempt, name) for name in allocation.node_names),
        gpus_per_node=allocation.gpus_per_node,
        is_command=is_command,
        done=_read(attempt.done),
        stop=_read(attempt.stop),
        errors=tuple(_rank_errors(attempt)),
        asked=asked,
        killed_nodes=killed_nodes,
        now=time.time(),
    )


def log_tail(attempt: AttemptDir) -> Callable[[int], str]:
    """A function that gives the end of a rank's log, '' where there is none."""

    def tail(rank: int) -> str:
        with contextlib.suppress(OSError), attempt.rank_log(rank).open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
        return ""

    return tail


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _rank_errors(attempt: AttemptDir) -> Iterator[RankError]:
    for path in sorted(attempt.path.iterdir()):
        found = _read(path) if _ERROR_FILE.fullmatch(path.name) else None
        if found is not None:
            message = " ".join(str(found.get("message", "")).split())
            kind, when = str(found.get("type", "")), float(found.get("time", 0.0))
            yield RankError(found["rank"], kind, message, when, _memory(found) if kind == OUT_OF_MEMORY else None)


def _memory(found: dict[str, Any]) -> OutOfMemory:
    return OutOfMemory(
        micro_batch_size=found.get("micro_batch_size"),
        step=found.get("step"),
        peak_bytes=found.get("peak_bytes"),
        capacity_bytes=found.get("capacity_bytes"),
    )


def _node_report(attempt: AttemptDir, name: str) -> NodeReport:
    found = _read(attempt.node(name))
    if found is None:
        return NodeReport(name)
    failed = next((check for check in found.get("checks", ()) if not check["ok"]), None)
    return NodeReport(
        name=name,
        state=found["state"],
        failed_check=failed and f"{failed['name']} failed: {failed['detail']}",
        heartbeat_at=found["heartbeat_at"],
        exit_code=found["exit_code"],
        asked=found["asked"],
        failed_ranks=tuple((rank["rank"], rank["exit_code"]) for rank in found["failed_ranks"]),
        oom_kills=found.get("oom_kills", 0),
    )
