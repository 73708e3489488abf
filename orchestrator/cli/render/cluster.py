"""A discovered cluster as the YAML of a profile, its notes as comments. Pure; reading it gives the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.submit.site.discover import Discovered

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NOT_TEXT = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n", "inf", "nan"})


def profile_text(discovered: Discovered) -> str:
    """The profile: equal values give equal text."""
    cluster, notes = discovered.cluster, discovered.notes
    values = cluster.model_dump(exclude={"partitions"}, exclude_none=True)
    lines = [*_comments(notes.get("", ()), 0), *_mapping(values, notes), "partitions:"]
    for name, partition in cluster.partitions.items():
        lines.append(f"  {_scalar(name)}:")
        lines += _comments(notes.get(f"partitions.{name}", ()), 4)
        if partition.default:
            lines.append("    default: true")
        if partition.grace_s is not None:
            lines.append(f"    grace_s: {partition.grace_s}")
        if partition.max_walltime is not None:
            lines.append(f'    max_walltime: "{partition.max_walltime}"')
        nodes = partition.nodes.model_dump(exclude_none=True)
        lines.append(f"    nodes: {{{', '.join(f'{key}: {_scalar(value)}' for key, value in nodes.items())}}}")
    return "".join(f"{line}\n" for line in lines)


def _comments(notes: tuple[str, ...], indent: int) -> Iterator[str]:
    return (f"{' ' * indent}# {note}" for note in notes)


def _mapping(values: Mapping[str, Any], notes: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for key, value in values.items():
        note = "; ".join(notes.get(key, ()))
        yield f"{key}: {_scalar(value)}" + (f"    # {note}" if note else "")


def _scalar(value: object) -> str:
    """A value in YAML: text in quotes wherever YAML could take it for something else."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value)
