"""Code as it was at submission: the recipe's own folder, copied; git's commit and diff; the packages installed.

The job imports user code from the copy, so edits made while it waits in the queue do not reach it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.files import make_private_dir, write_atomically, write_json
from orchestrator.run_dir import RunDir
from orchestrator.submit.commands import find_program, run_command

LEFT_OUT = frozenset({"__pycache__", "runs", "mlruns", "mlartifacts", "node_modules"})
"""Folders that hold results, not code; hidden files and folders are left out too."""
MOST_BYTES = 50 * 1024**2
MOST_FILES = 5000


@dataclass(frozen=True)
class Snapshot:
    """The files of a recipe's folder (paths relative to it, sorted) and the sha256 over their names and contents."""

    folder: Path
    files: tuple[Path, ...]
    digest: str

    def without(self, recipe: str) -> str:
        """The digest of all files but the recipe's own: what its text says is another matter than the code."""
        return _digest(self.folder, [file for file in self.files if file != Path(recipe)])


def take_snapshot(folder: Path) -> Snapshot:
    """List and hash the code beside a recipe. Raises RecipeError when that is data rather than code."""
    files = tuple(sorted(_walk(folder)))
    sizes = {file: (folder / file).stat().st_size for file in files}
    if sum(sizes.values()) > MOST_BYTES or len(files) > MOST_FILES:
        largest = max(sizes, key=lambda file: sizes[file])
        what = f"{len(files)} files, {sum(sizes.values()) / 1024**2:.0f} MiB: too much to copy with every run"
        raise RecipeError(Problem(str(folder), what, f"keep data elsewhere; the largest file is {largest}"))
    return Snapshot(folder, files, _digest(folder, files))


def _digest(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = (folder / file).read_bytes()
        digest.update(f"{file}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def copy_code(snapshot: Snapshot, folder: Path) -> None:
    """Copy the files to `folder`: 0600, or 0700 where the original is executable."""
    for file in snapshot.files:
        target = folder / file
        make_private_dir(target.parent)
        shutil.copyfile(snapshot.folder / file, target)
        target.chmod(0o700 if (snapshot.folder / file).stat().st_mode & stat.S_IXUSR else 0o600)
    make_private_dir(folder)


def write_snapshot(snapshot: Snapshot, run_dir: RunDir) -> None:
    """Copy the files, and write down git and the packages."""
    copy_code(snapshot, run_dir.snapshot_recipe)
    facts = git_facts(snapshot.folder)
    if facts is not None:
        write_json(run_dir.snapshot / "git.json", facts)
        write_atomically(run_dir.snapshot / "git.diff", _git(snapshot.folder, "diff", "HEAD") or "")
    write_atomically(run_dir.snapshot / "pip-freeze.txt", installed_packages())


def git_facts(folder: Path) -> dict[str, Any] | None:
    """{commit, branch, dirty, remote} of the repository around `folder`; None outside one, or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit.strip(),
        "branch": (_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
        "remote": _without_credentials((_git(folder, "remote", "get-url", "origin") or "").strip()),
    }


def installed_packages() -> str:
    """What `pip freeze` would list, without starting pip: name==version, one a line, sorted."""
    from importlib import metadata  # here: `plan` has no use for it, and it is slow to import

    found = {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions() if d.metadata["Name"]}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file() and not name.endswith((".pyc", ".db")):
                found.append(path.relative_to(folder))
        if len(found) > 2 * MOST_FILES:
            break
    return found


def _git(folder: Path, *words: str) -> str | None:
    if find_program("git") is None:
        return None
    done = run_command(("git", "-C", str(folder), *words), timeout_s=20)
    return done.stdout if done.returncode == 0 else None


def _without_credentials(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
