"""What Slurm says of this job now: its state, its nodes, when it ends, and whether another job takes its place."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.errors import LaunchError
from orchestrator.job.allocation import scontrol_hostnames
from orchestrator.job.commands import ask
from orchestrator.job.evidence import JobEnd
from orchestrator.launch.job_script import SAVE_MARGIN_S

ASK_S = 15.0
TIME_IS_UP_S = 120.0
"""A SIGUSR2 so much earlier than the job script asked for is still the warning: Slurm sends it up to 60 s early, and
the ranks have saved since."""

_ENDING = frozenset({"COMPLETING", "CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL"})
_NONE = frozenset({"", "None", "Unknown", "(null)", "N/A"})


@dataclass(frozen=True)
class JobNow:
    """One look at a job."""

    state: str
    """In Slurm's word, such as RUNNING or COMPLETING."""
    nodes: tuple[str, ...]
    """Those that it has still."""
    ends_at: float | None = None
    """When Slurm will end it, in seconds since the epoch; None for no limit."""
    is_preempted: bool = False
    is_out_of_time: bool = False
    """It has run as long as it may."""


def parse_job(text: str, hostnames_of: Callable[[str], tuple[str, ...]]) -> JobNow:
    """What `scontrol show job` has printed."""
    fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", text))
    nodelist = fields.get("NodeList", "")
    return JobNow(
        state=fields.get("JobState", ""),
        nodes=() if nodelist in _NONE else hostnames_of(nodelist),
        ends_at=_seconds(fields.get("EndTime", "")),
        is_preempted=fields.get("PreemptTime", "") not in _NONE,
        is_out_of_time=math.inf > _duration_s(fields.get("RunTime", "")) >= _duration_s(fields.get("TimeLimit", "")),
    )


def ask_job(job_id: str) -> JobNow | None:
    """The job as Slurm knows it; None where Slurm does not answer, which says nothing of the job."""
    try:
        return parse_job(ask(("scontrol", "-o", "show", "job", job_id), timeout_s=ASK_S), scontrol_hostnames)
    except LaunchError:
        return None


def ask_unreached(nodelist: str) -> frozenset[str]:
    """Those of these nodes that Slurm gets no answer from; none where it does not answer itself.

    It knows so after a third of SlurmdTimeout and a message that times out, and takes them for lost after all of it.
    """
    argv = ("sinfo", "--all", "--Node", "--noheader", f"--nodes={nodelist}", "--format=%N %t")
    try:
        rows = (row.split() for row in ask(argv, timeout_s=ASK_S).splitlines())
    except LaunchError:
        return frozenset()
    return frozenset(row[0] for row in rows if len(row) == 2 and row[1].endswith("*"))


def job_end(
    now: JobNow | None, asked_by: str | None, *, by_slurm: bool = False, warned_s: float = SAVE_MARGIN_S
) -> JobEnd | None:
    """Why the job is about to end, when its workers were asked to stop by that signal; None where it is not.

    Its script asks to be warned `warned_s` ahead.

    A SIGUSR2 `by_slurm` itself, which nobody sent by way of the driver, is the warning that its time is nearly up.
    """
    if now is None or asked_by is None:
        return "time_limit" if asked_by == "SIGUSR2" and by_slurm else None
    if now.is_preempted:
        return "preempted"
    is_late = now.ends_at is not None and now.ends_at - time.time() <= warned_s + TIME_IS_UP_S
    if now.is_out_of_time or (asked_by == "SIGUSR2" and is_late):
        return "time_limit"
    return "cancelled" if now.state in _ENDING else None


def _duration_s(text: str) -> float:
    """Slurm's duration, such as 1-02:03:04; infinite where it is none."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _seconds(text: str) -> float | None:
    """Slurm's local time, such as 2026-11-27T02:34:49."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
