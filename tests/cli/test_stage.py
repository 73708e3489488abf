"""`orchestrate stage` on the command line: what it prints, where it puts things, what it says when it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import TINY, orchestrate

TEXT = b"one two three\n" * 100
SHA256 = hashlib.sha256(TEXT).hexdigest()


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny recipe with a file of 1,400 bytes to stage."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    monkeypatch.delenv("ORCHESTRATE_CACHE", raising=False)
    (tmp_path / "corpus.txt").write_bytes(TEXT)
    for name in ("model.py", "data.py"):
        (tmp_path / name).write_bytes((TINY.parent / name).read_bytes())
    asset = f"assets: {{corpus: {{url: 'file://{tmp_path}/corpus.txt', sha256: {SHA256}}}}}\n"
    (tmp_path / "tiny.yaml").write_text(TINY.read_text() + asset)
    return Path("tiny.yaml")


def test_a_row_an_asset_and_the_lock_on_stdout_arrivals_on_stderr(tmp_path: Path, recipe: Path) -> None:
    source, target = (
        f"file://{tmp_path}/corpus.txt",
        f"{tmp_path}/home-cache/orchestrate/assets/files/{SHA256}/corpus.txt",
    )
    first = orchestrate("stage", recipe, cwd=tmp_path)
    assert first.returncode == 0
    assert first.stdout == f"corpus  {source}  1 file, 1.4 kB  fetched  {target}\nlock: tiny.lock.json\n"
    assert first.stderr == "corpus: 1.4 kB here\n"
    second = orchestrate("stage", recipe, cwd=tmp_path)
    assert second.stdout == first.stdout.replace("fetched", "there already") and second.stderr == ""


def test_another_cache_is_named_for_the_submission_that_must_find_it(tmp_path: Path, recipe: Path) -> None:
    done = orchestrate("stage", recipe, "--cache", "shared", cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == f"before you submit: export ORCHESTRATE_CACHE={tmp_path}/shared"
    assert orchestrate("plan", recipe, cwd=tmp_path).returncode == 2
    assert orchestrate("plan", recipe, cwd=tmp_path, env={"ORCHESTRATE_CACHE": "shared"}).returncode == 0


def test_the_same_as_data(tmp_path: Path, recipe: Path) -> None:
    facts = json.loads(orchestrate("stage", recipe, "--json", cwd=tmp_path).stdout)
    corpus = facts["assets"]["corpus"]
    assert facts["lock"] == "tiny.lock.json" and Path(facts["cache"]) == tmp_path / "home-cache/orchestrate/assets"
    assert (corpus["kind"], corpus["bytes"], corpus["fetched"]) == ("url", 1400, True)
    assert corpus["files"] == [{"path": "corpus.txt", "size": 1400, "sha256": SHA256}]
    assert Path(corpus["path"]).read_bytes() == TEXT


def test_an_override_is_staged_and_problems_are_told_at_its_place(tmp_path: Path, recipe: Path) -> None:
    done = orchestrate("stage", recipe, "--set", f"assets.corpus.sha256={'0' * 64}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2].startswith(f"--set assets.corpus.sha256={'0' * 64}: what file://")
    as_data = orchestrate("stage", recipe, "--json", "--set", "assets.corpus.url=file:///no/file", cwd=tmp_path)
    assert as_data.returncode == 2
    assert (
        json.loads(as_data.stdout)["problems"][0]["what"] == "file:///no/file cannot be read: No such file or directory"
    )


def test_a_recipe_without_assets_has_nothing_to_stage(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.read_text())
    done = orchestrate("stage", "tiny.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "nothing to stage: the recipe declares no assets\n")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_on_a_terminal_there_is_a_bar(tmp_path: Path, recipe: Path) -> None:
    leader, follower = pty.openpty()
    argv = (sys.executable, "-m", "orchestrator.cli", "stage", str(recipe))
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=follower, check=True)
    os.close(follower)
    seen = b""
    try:
        while block := os.read(leader, 4096):
            seen += block
    except OSError:  # Linux: the other end is closed
        pass
    finally:
        os.close(leader)
    assert b"corpus" in seen and b"\xe2\x94\x81" in seen
    assert done.stdout.endswith(b"lock: tiny.lock.json\n")


def test_a_plan_without_assets_pays_nothing_for_them(tmp_path: Path) -> None:
    program = """
import sys
from orchestrator.cli.__main__ import main
sys.argv = ["orchestrate", *sys.argv[1:]]
main()
print(*sys.modules, file=sys.stderr)
"""
    argv = (sys.executable, "-c", program, "plan", str(TINY))
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = done.stderr.splitlines()[-1].split()
    assert "orchestrator.submit.staged" in loaded
    assert [name for name in loaded if name.startswith("orchestrator.submit.assets")] == []
