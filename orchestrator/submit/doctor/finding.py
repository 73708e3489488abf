"""What the doctor looks at, and what it has to say of each thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.cluster import Cluster

Status = Literal["ok", "warning", "problem", "unknown"]

MOST_SKEW_S = 2.0
"""What two clocks may differ by; the resolution of most stamps is a second."""


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, what was seen, and what to do about it. Holds no secrets."""

    name: str
    status: Status
    seen: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """The same as data."""
        return asdict(self)


@dataclass(frozen=True)
class Patient:
    """The machine, the site and the recipe that the doctor is asked about."""

    cluster: Cluster
    folder: Path
    """Where runs are made: absolute, the current folder."""
    tracking_uri: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The shell's variables, with those of the recipe's job over them. May hold secrets."""

    @property
    def uses_slurm(self) -> bool:
        """Whether jobs go to other machines than this."""
        return self.cluster.scheduler == "slurm"


Check = Callable[[Patient], Iterable[Finding]]


def without_secrets(uri: str) -> str:
    """A URI, or a proxy without its scheme, without user, password and query; errs towards hiding."""
    scheme, mark, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    before_query, _, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}{mark}[redacted]"
    return f"{scheme}{mark}{before_query.rpartition('@')[2].partition('#')[0]}"


def clock_finding(name: str, skew_s: float, whose: str) -> Finding:
    """How far another clock is ahead of this machine's, in seconds."""
    seen = f"{whose} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine"
    if abs(skew_s) < MOST_SKEW_S:
        return Finding(name, "ok", f"{whose} and this machine agree within {MOST_SKEW_S:g} s")
    return Finding(name, "warning", seen, "let both follow one time server (chrony): heartbeats and metrics carry time")
