"""The runs under a folder, found by name: for who asks about them, and for who uses what they have trained."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import Problem, RunError, did_you_mean
from orchestrator.run_dir import RunDir


def find_run(word: str, *, cwd: Path) -> RunDir:
    """The run that `word` means: its directory, its name under `runs/`, or an unambiguous beginning of that name.

    Raises RunError naming the candidates.
    """
    path = Path(word)
    for candidate in (path, cwd / "runs" / word):
        if (candidate / "run.json").is_file():
            return RunDir(candidate.absolute())
    if path.is_dir():
        raise RunError(Problem(word, "not a run directory: it has no run.json", "see `orchestrate status`"))
    names = [run.path.name for run in all_runs(cwd)]
    matches = [name for name in names if name.startswith(word)]
    if len(matches) == 1:
        return RunDir((cwd / "runs" / matches[0]).absolute())
    if matches:
        raise RunError(Problem(word, f"{len(matches)} runs begin like this", f"choose one of: {', '.join(matches)}"))
    fix = did_you_mean(word, names) if names else "submit a recipe first"
    raise RunError(Problem(word, f"no such run in {cwd / 'runs'}", fix))


def all_runs(cwd: Path) -> list[RunDir]:
    """Every run under `<cwd>/runs`, oldest first."""
    found = [RunDir(path.parent.absolute()) for path in (cwd / "runs").glob("*/run.json")]
    return sorted(found, key=lambda run: (run.run.stat().st_mtime, run.path.name))
