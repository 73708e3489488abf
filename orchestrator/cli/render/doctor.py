"""What the doctor found as a page that can be pasted into an issue. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.submit.doctor.finding import Finding
from orchestrator.units import plural


def doctor_screen(findings: Sequence[Finding], *, version: str, platform: str) -> str:
    """One line a finding, its fix below it, and a count at the end."""
    lines = [f"orchestrate {version} on {platform}"]
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.name:<{width}}  {finding.seen}")
        if finding.fix:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.fix}")
    lines.append(verdict(findings))
    return "".join(f"{line}\n" for line in lines)


def verdict(findings: Sequence[Finding]) -> str:
    """'2 problems, 1 warning; not known: slurm', or that all is well."""
    problems, warnings = (sum(one.status == status for one in findings) for status in ("problem", "warning"))
    counts = [plural(count, noun) for count, noun in ((problems, "problem"), (warnings, "warning")) if count]
    unknown = ", ".join(one.name for one in findings if one.status == "unknown")
    return "; ".join(filter(None, (", ".join(counts) or "nothing is wrong", unknown and f"not known: {unknown}")))


def doctor_facts(findings: Sequence[Finding], *, version: str, platform: str, elapsed_s: float) -> dict[str, Any]:
    """The same as data."""
    told = [finding.as_json() for finding in findings]
    return {"version": version, "platform": platform, "elapsed_s": round(elapsed_s, 3), "findings": told}
