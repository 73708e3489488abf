"""What the runs under a test's folder said last: shown where the test fails, on a machine that nobody can look into."""

from __future__ import annotations

import contextlib
from pathlib import Path

_LINES, _CHARACTERS = 25, 20_000


def last_words(folder: Path) -> str:
    """Of each run under `folder`: its verdicts, and the last lines of its logs. Empty where no run was."""
    told: list[Path] = []
    with contextlib.suppress(OSError):  # ranks may still be at work, and take away what was just listed
        for run in [file.parent for file in sorted(folder.rglob("run.json"))]:
            told += sorted((*run.glob("attempts/*/verdict.json"), *run.glob("attempts/*/logs/*.log")))
            told += sorted(run.glob("logs/*.log"))
    return "\n".join(f"--- {path.relative_to(folder)}\n{_end_of(path)}" for path in told)[-_CHARACTERS:]


def _end_of(path: Path) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-_LINES:])
    except OSError as error:
        return str(error)
