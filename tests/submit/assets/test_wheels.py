"""Wheels as data: what pip is set to look at hands them out, nothing of them is installed or run."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.assets.environment import asset_environment
from tests.support.asset_recipes import recipe_with, refusal, staged

TAG = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
METADATA = (
    "Metadata-Version: 2.1\nName: pairs\nVersion: 1.2\nRequires-Python: >=9\nRequires-Dist: nothing-of-the-kind\n"
)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of the package `pairs`, for a Python that is not here, where pip looks."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    path = shelf / "pairs-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("pairs/__init__.py", "raise SystemExit('it was run')\n")
        file.writestr("pairs/data.tsv", "one\teins\n")
        file.writestr("pairs-1.2.dist-info/METADATA", METADATA)
        file.writestr("pairs-1.2.dist-info/WHEEL", TAG)
        file.writestr("pairs-1.2.dist-info/RECORD", "")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_arrives_whatever_python_and_packages_it_wants(tmp_path: Path, wheel: Path) -> None:
    recipe = recipe_with(tmp_path, f"pairs: {{wheel: pairs==1.2, sha256: {sha256(wheel)}}}")
    (one,) = staged(recipe).assets
    assert one.fetched and one.path.name == "pairs-1.2.whl"
    assert zipfile.ZipFile(one.path).read("pairs/data.tsv") == b"one\teins\n"
    variables = asset_environment(read_recipe(recipe).recipe, cache_at(None, os.environ), recipe.parent)
    assert variables["ORCHESTRATE_ASSET_PAIRS"] == str(one.path)
    wheel.unlink()
    assert not staged(recipe).assets[0].fetched


def test_a_wheel_with_another_sha256_is_refused_and_thrown_away(tmp_path: Path, wheel: Path) -> None:
    told = refusal(recipe_with(tmp_path, f"pairs: {{wheel: pairs==1.2, sha256: {'0' * 64}}}"))
    assert f"the wheel of pairs==1.2 has the sha256 {sha256(wheel)}; it was thrown away" in told
    assert list(cache_at(None, os.environ).root.rglob("*.whl")) == []


def test_a_version_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, wheel: Path) -> None:
    told = refusal(recipe_with(tmp_path, f"pairs: {{wheel: pairs==1.3, sha256: {'0' * 64}}}"))
    assert "pip cannot download pairs==1.3: Could not find a version that satisfies" in told
    assert "(from versions: 1.2)" in told and "see: pip index versions pairs" in told


def test_an_index_that_is_down_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    two = (f"{name}: {{wheel: {name}==1, sha256: {'0' * 64}}}" for name in ("first", "second"))
    told = refusal(recipe_with(tmp_path, *two))
    assert "assets.first.wheel: the package index that pip asks does not answer\n    see: pip config list" in told
    assert "assets.second.wheel: not tried: the package index" in told
