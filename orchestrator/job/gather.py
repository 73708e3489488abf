"""What an attempt left behind, read from its directory for the judge."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.cluster import Allocation
from orchestrator.files import FULL, read_json
from orchestrator.hang import Hang
from orchestrator.job.evidence import Evidence, NodeReport, RankError
from orchestrator.job.verdict import OutOfMemory
from orchestrator.out_of_memory import OUT_OF_MEMORY
from orchestrator.run_dir import AttemptDir

_ERROR_FILE = re.compile(r"error-\d+\.json")
_LOG_TAIL_BYTES = 64 * 1024
_ROOM_BYTES = 64 * 1024
"""More than any of an attempt's own files."""


def gather(
    attempt: AttemptDir,
    allocation: Allocation,
    *,
    exit_code: int,
    is_command: bool,
    opens_session: bool,
    asked: str | None,
    killed_nodes: tuple[str, ...],
    silent_nodes: tuple[str, ...],
) -> Evidence:
    """Everything about an attempt whose step has ended. A damaged file counts as none."""
    done = _read(attempt.done)
    return Evidence(
        exit_code=exit_code,
        nodes=tuple(_node_report(attempt, name) for name in allocation.node_names),
        gpus_per_node=allocation.gpus_per_node,
        is_command=is_command,
        opens_session=opens_session,
        done=done,
        stop=_read(attempt.stop),
        errors=tuple(_rank_errors(attempt)),
        asked=asked,
        killed_nodes=killed_nodes,
        silent_nodes=silent_nodes,
        no_room=None if done is not None else _no_room(attempt),
    )


def _no_room(attempt: AttemptDir) -> str | None:
    """Why nothing of some size can be written beside the attempt's files now; None where it can."""
    try:
        with tempfile.TemporaryFile(dir=attempt.path, buffering=0) as probe:
            os.posix_fallocate(probe.fileno(), 0, _ROOM_BYTES)
    except OSError as error:
        return error.strerror if error.errno in FULL else None
    return None


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
            memory = _memory(found) if kind == OUT_OF_MEMORY else None
            nodes = tuple(map(str, found.get("nodes", ())))
            yield RankError(found["rank"], kind, message, when, memory, found.get("step"), nodes)


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
        exit_code=found["exit_code"],
        asked=found["asked"],
        failed_ranks=tuple((rank["rank"], rank["exit_code"]) for rank in found["failed_ranks"]),
        oom_kills=found.get("oom_kills", 0),
        hang=Hang(**found["hang"]) if found.get("hang") else None,
        silent=Hang(**found["silent"]) if found.get("silent") else None,
    )
