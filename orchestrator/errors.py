"""What can go wrong, as data: every message says where, what, and what to write instead.

OrchestratorError              anything the user is told in one or two lines; a trace-back is for bugs
├── RecipeError        exit 2  the recipe, an override, or the user's own files
├── ClusterError       exit 2  the cluster profile, or what it promises
├── RunError           exit 2  the run directory: missing, busy, unwritable, of another run
├── SubmissionError    exit 3  the scheduler refused, or is not there
├── LaunchError        exit 1  the world could not be started on the nodes it was given
└── TrainingError      exit 1  training cannot go on: a loss that is not finite, counts that disagree
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import ClassVar

_PLACE = re.compile(r"(.+?):(\d+):(\d+)(?: (.+))?")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong: `where` (file:line:col key, or a path), `what`, and the `fix` to write instead."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        first = f"{self.where}: {self.what}" if self.where else self.what
        return f"{first}\n    {self.fix}" if self.fix else first

    def as_json(self) -> dict[str, str | int | None]:
        """`where` also in its parts: file, line and column (from 1; None where there is none), and dotted key."""
        match = _PLACE.fullmatch(self.where)
        file, line, column, key = match.groups() if match else (None, None, None, None)
        place = {"file": file, "line": line and int(line), "column": column and int(column), "key": key}
        return {**place, **asdict(self)}

    @property
    def position(self) -> tuple[int, int]:
        """(line, column) for the order of a file; what stands in none comes first."""
        match = _PLACE.fullmatch(self.where)
        return (int(match[2]), int(match[3])) if match else (0, 0)


class OrchestratorError(Exception):
    """The root of all errors that are told, not traced. Carries one or more problems."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class RecipeError(OrchestratorError):
    exit_code = 2


class ClusterError(OrchestratorError):
    exit_code = 2


class RunError(OrchestratorError):
    exit_code = 2


class SubmissionError(OrchestratorError):
    exit_code = 3


class LaunchError(OrchestratorError):
    exit_code = 1


class TrainingError(OrchestratorError):
    exit_code = 1


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The fix for a misspelt word: the nearest choice if one is near, else all of them."""
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(known)}"
