"""The run directory: written whole or not at all, the code as it was, and no secret where it could be read."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_line import TINY, orchestrate

CANARY = "canary-5f1c0d"


def test_a_run_directory_that_cannot_be_made_is_one_problem_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    done = orchestrate("submit", TINY, "--prepare", cwd=tmp_path)
    assert done.returncode == 2
    where, fix = done.stderr.splitlines()[-2:]
    assert where.startswith(str(tmp_path / "runs" / "tiny-")) and "cannot be created" in where
    assert fix.strip() == "change to a directory you may write to"


def test_the_snapshot_is_the_code_as_it_was_and_changes_to_it_change_the_fingerprint(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name in ("tiny.yaml", "model.py", "data.py"):
        (recipes / name).write_bytes((TINY.parent / name).read_bytes())
    first = prepared(tmp_path)
    before = (recipes / "model.py").read_bytes()
    (recipes / "model.py").write_bytes(before + b"\n# changed\n")
    second = prepared(tmp_path)
    assert (first / "snapshot" / "recipe" / "model.py").read_bytes() == before
    assert first.name != second.name
    assert "torch==" in (first / "snapshot" / "pip-freeze.txt").read_text()


def test_a_secret_of_the_environment_stands_in_one_private_file_alone(tmp_path: Path) -> None:
    words = ("--set", "env.variables={TOKEN: '${oc.env:SECRET_OF_MINE}'}", "--json")
    done = orchestrate("submit", TINY, "--prepare", *words, cwd=tmp_path, env={"SECRET_OF_MINE": CANARY})
    assert done.returncode == 0, done.stderr
    run_dir = Path(json.loads(done.stdout)["run_dir"])
    holders = [path.name for path in run_dir.rglob("*") if path.is_file() and CANARY in path.read_text()]
    assert holders == ["environment.json"]
    assert (run_dir / "environment.json").stat().st_mode & 0o077 == 0
    assert CANARY not in done.stdout + done.stderr


def prepared(cwd: Path) -> Path:
    done = orchestrate("submit", "recipes/tiny.yaml", "--prepare", "--again", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["run_dir"])
