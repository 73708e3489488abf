"""What a recipe with assets must show before it is submitted: a lock that agrees, files as they were locked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from orchestrator.errors import Problem
from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.assets.lock import lock_path
from orchestrator.submit.assets.preflight import asset_problems
from orchestrator.submit.assets.stage import stage
from tests.support.asset_recipes import recipe_with, refusal
from tests.support.command_line import orchestrate

TEXT = b"one two three\n" * 10
STAGE = "run: orchestrate stage tiny.yaml"


def corpus(tmp_path: Path, data: bytes = TEXT) -> str:
    (tmp_path / "source").mkdir(exist_ok=True)
    (tmp_path / "source" / "corpus.txt").write_bytes(data)
    url, sha256 = f"file://{tmp_path}/source/corpus.txt", hashlib.sha256(data).hexdigest()
    return f"corpus: {{url: '{url}', sha256: {sha256}}}"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with one staged file."""
    recipe = recipe_with(tmp_path, corpus(tmp_path))
    stage(read_recipe(recipe), recipe, cache_at(None, os.environ), watch=lambda name, done, total: None)
    return recipe


def problems(recipe: Path, *, thorough: bool) -> list[Problem]:
    return list(asset_problems(read_recipe(recipe).recipe, recipe, recipe.parent, thorough=thorough))


def staged_file() -> Path:
    return next(cache_at(None, os.environ).root.glob("files/*/corpus.txt"))


def test_what_is_staged_passes(recipe: Path) -> None:
    assert problems(recipe, thorough=False) == problems(recipe, thorough=True) == []


def test_a_recipe_that_wants_something_else_than_the_lock_is_told(tmp_path: Path, recipe: Path) -> None:
    changed = recipe_with(tmp_path, corpus(tmp_path, b"another"), "more: {package: scikit-learn, path: sklearn/x.csv}")
    what = "not staged as it is declared now: the lock names another source or version"
    assert problems(changed, thorough=False) == [
        Problem("assets.corpus", what, STAGE),
        Problem("assets.more", "not staged", STAGE),
    ]


def test_a_file_of_another_size_is_seen_by_plan(recipe: Path) -> None:
    staged_file().write_bytes(TEXT[:-1])
    what = "corpus.txt has 139 bytes, and the lock says 140"
    assert problems(recipe, thorough=False) == [Problem("assets.corpus", what, STAGE)]


def test_other_content_of_the_same_size_is_seen_by_submit_where_the_file_was_touched(recipe: Path) -> None:
    staged_file().write_bytes(TEXT[::-1])
    what = "corpus.txt is not what was locked: another sha256"
    assert problems(recipe, thorough=True) == [Problem("assets.corpus", what, STAGE)]


def test_a_file_that_was_only_touched_passes(recipe: Path) -> None:
    os.utime(staged_file(), (1, 1))
    assert problems(recipe, thorough=True) == []


def test_a_cache_without_records_is_read_by_its_content(recipe: Path) -> None:
    for record in (cache_at(None, os.environ).root / "records").iterdir():
        record.write_text("{")
    assert problems(recipe, thorough=True) == []
    staged_file().write_bytes(TEXT[::-1])
    assert [problem.what for problem in problems(recipe, thorough=True)] == [
        "corpus.txt is not what was locked: another sha256"
    ]


def test_another_version_of_a_package_than_the_locked_one_is_told(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "iris: {package: scikit-learn, path: sklearn/datasets/data/iris.csv}")
    report = stage(read_recipe(recipe), recipe, cache_at(None, os.environ), watch=lambda name, done, total: None)
    now = report.assets[0].locked.version
    lock_path(recipe).write_text(lock_path(recipe).read_text().replace(now, "0.1"))
    what = f"scikit-learn {now} is installed, and 0.1 was locked"
    assert problems(recipe, thorough=False) == [Problem("assets.iris", what, STAGE)]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2, "assets": {}}', '{"format": 1, "assets": {"a": 1}}', "[" * 200_000, "\udcff"],
    ids=["empty", "list", "nothing", "format", "number", "deep", "latin"],
)
def test_a_file_that_is_no_lock_is_told_with_its_path(tmp_path: Path, recipe: Path, text: str) -> None:
    lock_path(recipe).write_text(text, errors="surrogateescape")
    (problem,) = problems(recipe, thorough=False)
    assert problem.where == "assets" and problem.what.startswith("tiny.lock.json is not a lock file: ")
    assert problem.fix == "take it away, then stage again: orchestrate stage tiny.yaml"


def test_the_lock_is_the_same_bytes_whatever_the_order_of_the_assets(tmp_path: Path) -> None:
    iris = "iris: {package: scikit-learn, path: sklearn/datasets/data/iris.csv}"
    texts = []
    for assets in ((corpus(tmp_path), iris), (iris, corpus(tmp_path))):
        recipe = recipe_with(tmp_path, *assets)
        stage(read_recipe(recipe), recipe, cache_at(None, os.environ), watch=lambda name, done, total: None)
        texts.append(lock_path(recipe).read_bytes())
    assert texts[0] == texts[1] and str(tmp_path / "home-cache").encode() not in texts[0]


def test_all_that_is_wrong_with_assets_stands_beside_all_else(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, corpus(tmp_path))
    recipe.write_text(recipe.read_text().replace("name: sgd", "name: sgdd"))
    done = orchestrate("plan", recipe, cwd=tmp_path)
    assert done.returncode == 2
    assert [line.split()[1] for line in done.stderr.splitlines()[:-1:2]] == ["optimizer.name:", "assets.corpus:"]
    assert done.stderr.splitlines()[-1] == "2 problems"


def test_a_run_keeps_its_lock_and_is_resumed_with_the_cache_it_was_submitted_with(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = orchestrate("submit", "--prepare", "--json", recipe, cwd=tmp_path)
    run_dir = Path(json.loads(done.stdout)["run_dir"])
    assert (run_dir / "recipe.lock.json").read_text() == lock_path(recipe).read_text()
    first = json.loads((run_dir / "environment.json").read_text())
    path, away = staged_file(), tmp_path / "away"
    path.rename(away)
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "another"))
    refused = orchestrate("resume", run_dir.name, cwd=tmp_path)
    assert refused.returncode == 2
    assert f"assets.corpus: corpus.txt is missing from {first['ORCHESTRATE_CACHE']}" in refused.stderr
    assert f"orchestrate stage {run_dir}/recipe.yaml --cache {first['ORCHESTRATE_CACHE']}" in refused.stderr
    away.rename(path)
    done = orchestrate("resume", run_dir.name, "--wait", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((run_dir / "environment.json").read_text()) == first
    assert first["ORCHESTRATE_ASSET_CORPUS"] == str(path)


@pytest.mark.parametrize(
    "files",
    [
        [],
        [{"path": "corpus.txt", "size": 140, "sha256": "0" * 64}],
        [{"path": "../corpus.txt"}],
        [{"path": "/corpus.txt"}],
        [{"path": "corpus\0.txt"}],
        [{"size": float("inf")}],
        [{"size": None}],
        [{}, {}],
    ],
    ids=["none", "other content", "above", "absolute", "zero byte", "endless", "null", "two"],
)
def test_a_lock_of_files_that_cannot_be_the_asset_is_refused_by_plan_and_by_stage(
    recipe: Path, files: list[dict[str, object]]
) -> None:
    whole = json.loads(lock_path(recipe).read_text())
    (own,) = whole["assets"]["corpus"]["files"]
    whole["assets"]["corpus"]["files"] = [{**own, **file} for file in files]
    lock_path(recipe).write_text(json.dumps(whole))
    (problem,) = problems(recipe, thorough=False)
    assert problem.where == "assets" and problem.what.startswith("tiny.lock.json is not a lock file: ")
    assert "tiny.lock.json: is not a lock file: " in refusal(recipe)


def test_a_record_without_times_is_read_by_the_files_content(recipe: Path) -> None:
    (record,) = (cache_at(None, os.environ).root / "records").iterdir()
    record.write_text(json.dumps({**json.loads(record.read_text()), "mtimes_ns": {}}))
    assert problems(recipe, thorough=True) == []


def test_a_relative_cache_of_the_user_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_at(None, {"XDG_CACHE_HOME": "cache"}) == cache_at(None, {}) == cache_at(None, {"XDG_CACHE_HOME": ""})
    assert cache_at(None, {}).root == Path("/home/me/.cache/orchestrate/assets")


def test_submit_warns_of_a_cache_that_the_nodes_of_a_job_may_not_see(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site.yaml"
    nodes = "{num_nodes: 1, cpus: 8, gpus: 1}"
    site.write_text(f"{{name: site, scheduler: slurm, partitions: {{main: {{nodes: {nodes}, default: true}}}}}}")
    done = orchestrate("submit", "--prepare", "--offline", recipe, "--cluster", site, cwd=tmp_path)
    root = cache_at(None, os.environ).root
    assert "warning: the assets are on " in done.stderr and f"{root}; ORCHESTRATE_CACHE names a shared" in done.stderr
    assert "warning: the assets" not in orchestrate("submit", "--prepare", recipe, cwd=tmp_path).stderr
