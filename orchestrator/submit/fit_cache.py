"""What simulations of a recipe have found, kept in the user's cache for as long as all that they saw stays the same."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.files import make_private_dir, read_json, write_json
from orchestrator.plan.fit import ModelSizes
from orchestrator.recipe.read import ReadRecipe
from orchestrator.submit.commands import Say
from orchestrator.submit.user_cache import file_of

PROBE_VERSION = 2
"""Raised whenever the simulation counts differently: what was remembered is then forgotten."""
_SECTIONS = {"seed", "model", "datasets", "loss", "optimizer", "precision", "activation_checkpointing", "env"}
_POINT = ("recompute", "accumulating", "micro_batch_size", "num_bytes")


@dataclass
class Found:
    """What simulations of one recipe have found so far, as it is kept in the cache."""

    facts: dict[str, Any] = field(default_factory=dict)
    points: dict[tuple[bool, bool, int], int | None] = field(default_factory=dict)
    """Peak bytes by (recompute, accumulating, micro-batch); None: it cannot be trained on."""
    lasting: bool = True
    """False after a crash or a time-out: another time it may go better, so that is not remembered."""

    def add(self, answer: dict[str, Any]) -> None:
        """Take in what a simulation answered."""
        for seen in ("modules", "variables"):
            answer = {**answer, seen: {**self.facts.get(seen, {}), **answer.get(seen, {})}}
        self.facts |= {name: value for name, value in answer.items() if name != "points"}
        for point in answer.get("points", ()):
            self.points[point["recompute"], point["accumulating"], point["micro_batch_size"]] = point["num_bytes"]

    def peak_of(self, recompute: bool) -> Callable[[int, bool], int | None]:
        """The peak by (micro-batch, accumulating); it raises KeyError where nobody has asked for it yet."""
        return lambda size, accumulating: self.points[recompute, accumulating, size]

    @property
    def failed_for_good(self) -> bool:
        """Whether another simulation would fail as well: with points, only a micro-batch was met that cannot be."""
        return "failed" in self.facts and not self.points

    def fails_at(self, budget_bytes: int, *, recompute: bool, accumulating: bool) -> int | None:
        """The smallest micro-batch that did not fit: so, or with less to hold; None where all that were tried did."""
        if self.facts.get("step_bytes", 0) > budget_bytes:
            return 1
        sizes = (
            size
            for (recomputed, accumulated, size), num_bytes in self.points.items()
            if recomputed >= recompute and accumulated <= accumulating and (num_bytes or 0) > budget_bytes
        )
        return min(sizes, default=None)

    def as_json(self) -> dict[str, Any]:
        """The answer that would give all of this."""
        points = [dict(zip(_POINT, (*key, num_bytes), strict=True)) for key, num_bytes in self.points.items()]
        return {**self.facts, "points": points}


def cache_file(read: ReadRecipe, accelerator: str, *, code_digest: str, environment: Mapping[str, str]) -> Path:
    """Where the points of a recipe are kept: named by what is known beforehand of all that they depend on.

    `code_digest` is that of the files beside the recipe. Raises RuntimeError where nobody has a home.
    """
    depends_on = {
        "probe": PROBE_VERSION,
        "recipe": read.recipe.model_dump(mode="json", include=_SECTIONS, exclude_none=True),
        "code": code_digest,
        "accelerator": accelerator,
        "python": sys.version,
        "packages": _installed(),
        "path": environment.get("PYTHONPATH"),
    }
    return file_of("fit", depends_on)


def _installed() -> list[str]:
    """`torch-2.13.0.dist-info` and so on: names and versions without reading any file."""
    folders = [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]
    return sorted({path.name for folder in folders for path in folder.glob("*.dist-info")})


def remembered(cache: Path, environment: Mapping[str, str]) -> Found:
    """What the file holds; nothing where it cannot be read, or where what its simulations saw has changed since."""
    found = Found()
    try:
        answer = read_json(cache) or {}
        if not _is_sound(answer) or not _is_current(answer, environment):
            return found
        found.add(answer)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Found()
    return found


def _is_sound(answer: dict[str, Any]) -> bool:
    """Whether it has the numbers that rows are made of. Raises whatever a wrong shape raises."""
    numbers = [*vars(ModelSizes(**answer["sizes"])).values(), answer.get("step_bytes", 0)]
    numbers += [point["micro_batch_size"] for point in answer["points"]]
    numbers += [point["num_bytes"] for point in answer["points"] if point["num_bytes"] is not None]
    flags = [point[name] for point in answer["points"] for name in ("recompute", "accumulating")]
    return all(type(number) is int for number in numbers) and all(type(flag) is bool for flag in flags)


def _is_current(answer: dict[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether modules from elsewhere and variables are what they were when the simulation loaded and read them."""
    modules: dict[str, str] = answer["modules"]
    variables: dict[str, str | None] = answer["variables"]
    return all(sha256(Path(file).read_bytes()) == digest for file, digest in modules.items()) and all(
        digest == (sha256(environment[name].encode()) if name in environment else None)
        for name, digest in variables.items()
    )


def sha256(content: bytes) -> str:
    """As the simulation names what it saw."""
    return hashlib.sha256(content).hexdigest()


def remember(found: Found, cache: Path, say: Say) -> None:
    """Write what was found; where that cannot be, a line of talk tells so."""
    try:
        make_private_dir(cache.parent)
        write_json(cache, found.as_json())
    except OSError as error:
        say(f"fit: not remembered: {cache.parent}: {error.strerror}")
