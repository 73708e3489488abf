"""What can go wrong, as data: every message says where, what, and what to write instead.

OrchestratorError              anything the user is told in one or two lines; a trace-back is for bugs
├── RecipeError        exit 2  the recipe, an override, or the user's own files
├── ClusterError       exit 2  the cluster profile, or what it promises
├── RunError           exit 2  the run directory: missing, busy, unwritable, of another run
├── SubmissionError    exit 3  the scheduler refused, or is not there
├── LaunchError        exit 1  the world could not be started on the nodes it was given
│   └── NodesFailed    exit 1  the preflight found some of them wanting: the job goes on without these, if it can
└── TrainingError      exit 1  training cannot go on: counts that disagree, data that changed
    ├── NonFiniteError exit 1  a loss or a gradient is not a number, or infinite
    └── NoRoom         exit 1  a checkpoint does not fit on its file system; fatal for the last one alone
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Self


@dataclass(frozen=True)
class Place:
    """Where something was written: line and column of a file, from 1; or (line 0) a whole file, or an override."""

    source: str
    """The file as it was named, or the words of the override: `--set a.b=c`."""
    line: int = 0
    column: int = 0
    """Of an override: its number on the command line, so that overrides are told in their order."""
    key: str | None = None
    """The dotted key that an override sets; None in a file."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def naming(self, key: str) -> str:
        """`recipe.yaml:14:3 batch.effective`; an override's own words where they name the key already."""
        named = self.key is not None and f"{self.key}.".startswith(f"{key}.")
        return str(self) if named or not key else f"{self} {key}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `where` (file:line:col key, or a path), `what`, and the `fix` to write instead."""

    where: str
    what: str
    fix: str = ""
    place: Place | None = field(default=None, compare=False)
    """What `where` says, in its parts; None where that is no place in a text."""
    key: str = field(default="", compare=False)
    """The dotted key that it is about, once it has its place."""

    about: tuple[str, ...] = field(default=(), compare=False)
    """Dotted keys below `where` that make the problem together, before it has its place."""

    @classmethod
    def at(cls, place: Place, key: str, what: str, fix: str) -> Self:
        """A problem with the dotted `key`, which stands at `place`."""
        return cls(place.naming(key), what, fix, place, key)

    def __str__(self) -> str:
        first = f"{self.where}: {self.what}" if self.where else self.what
        return f"{first}\n    {self.fix}" if self.fix else first

    def as_json(self) -> dict[str, str | int | None]:
        """`where` also in its parts: file, line and column (from 1), dotted key; None for each that there is not."""
        place = self.place or Place("", key="")
        return {
            "where": self.where,
            "file": place.source if place.key is None else None,
            "line": place.line or None,
            "column": place.column if place.line else None,
            "key": self.key or None,
            "what": self.what,
            "fix": self.fix,
        }

    @property
    def position(self) -> tuple[int, int]:
        """(line, column), for the order of a file; what stands in none comes first."""
        return (self.place.line, self.place.column) if self.place else (0, 0)


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


class NodesFailed(LaunchError):
    """`nodes` failed a comparison with the others; `facts` is what a rank leaves of it for the driver."""

    def __init__(self, problems: Iterable[Problem], nodes: Iterable[str]) -> None:
        super().__init__(problems)
        self.nodes = tuple(nodes)
        self.facts = {"nodes": list(self.nodes)}


class TrainingError(OrchestratorError):
    exit_code = 1


class NoRoom(TrainingError):
    pass


class NonFiniteError(TrainingError):
    pass


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be; None when none is near.

    The same but for its case comes first, then what begins alike: hardly anybody mistypes the first letter, and cpus
    are not gpus.
    """
    written = {choice.casefold(): choice for choice in sorted(choices, reverse=True)}
    wanted = word.casefold()
    if wanted in written:
        return written[wanted]
    near = difflib.get_close_matches(wanted, sorted(written), cutoff=0.6)
    alike = [choice for choice in near if choice[:1] == wanted[:1]]
    return written[(alike or near)[0]] if near else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The fix for a misspelt word: the nearest choice if one is near, else all of them."""
    known = sorted(choices)
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else f"choose one of: {', '.join(known)}"
