"""Assets that a recipe's own function makes of others: once, again when what they hang on changes, and as locked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.assets.environment import asset_environment
from orchestrator.submit.assets.preflight import asset_problems
from orchestrator.submit.assets.stage import stage
from tests.support.asset_recipes import recipe_with, refusal, staged
from tests.support.command_line import orchestrate

CODE = """
from words import shout

def count(assets, folder, least=1):
    print("counting")
    words = assets["iris"].read_text().split(",")
    (folder / "parts").mkdir()
    (folder / "parts" / "count.txt").write_text(shout(str(max(len(words), least))))
"""
WORDS = "def shout(text):\n    return f'{text}!'\n"
IRIS = "iris: {package: scikit_learn, path: sklearn/datasets/data/iris.csv}"


def recipe_of(folder: Path, *, code: str = CODE, prepared: str = "{prepare: 'make:count', of: [iris]}") -> Path:
    recipe = recipe_with(folder, IRIS, f"counts: {prepared}")
    (folder / "make.py").write_text(code)
    (folder / "words.py").write_text(WORDS)
    return recipe


def problems(recipe: Path) -> list[str]:
    """What a plan would say of its assets."""
    found = asset_problems(read_recipe(recipe).recipe, recipe, recipe.parent, thorough=True)
    return [problem.what for problem in found]


def test_files_are_prepared_once_and_the_job_is_told_where_they_are(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    said: list[str] = []
    cache = cache_at(None, os.environ)
    report = stage(read_recipe(recipe), recipe, cache, watch=lambda *_: None, say=said.append)
    assert said == ["counts: prepared by make:count", "counts: counting"]
    variables = asset_environment(read_recipe(recipe).recipe, cache, recipe.parent)
    folder = Path(variables["ORCHESTRATE_ASSET_COUNTS"])
    assert folder == report.assets[1].path and (folder / "parts" / "count.txt").read_text() == "605!"
    assert problems(recipe) == []
    assert [one.fetched for one in staged(recipe).assets] == [False, False]


@pytest.mark.parametrize("changed", ["make.py", "words.py", "tiny.yaml"])
def test_a_change_of_code_or_args_wants_it_prepared_anew(tmp_path: Path, changed: str) -> None:
    recipe = recipe_of(tmp_path)
    staged(recipe)
    (tmp_path / "model.py").write_text((tmp_path / "model.py").read_text() + "\n# of no concern\n")
    assert problems(recipe) == []
    file = tmp_path / changed
    file.write_text(file.read_text().replace("of: [iris]", "of: [iris], args: {least: 7000}").replace("!", "?"))
    if changed == "make.py":
        file.write_text(CODE.replace("least=1", "least=2"))
    assert problems(recipe) == [
        "not prepared as it is declared now: its code, its args or what it is made of has changed"
    ]
    assert staged(recipe).assets[1].fetched
    assert problems(recipe) == []


def test_a_prepared_file_that_was_touched_is_noticed_and_made_again(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    path = staged(recipe).assets[1].path / "parts" / "count.txt"
    path.write_text("606!")
    assert problems(recipe) == ["parts/count.txt is not what was locked: another sha256"]
    assert staged(recipe).assets[1].fetched and path.read_text() == "605!"


def test_an_error_is_told_in_one_line_with_its_place_and_leaves_nothing(tmp_path: Path) -> None:
    code = "def count(assets, folder):\n    (folder / 'half').write_text('')\n    raise ValueError('no text in it')\n"
    told = refusal(recipe_of(tmp_path, code=code))
    assert "assets.counts.prepare: make:count raised ValueError: no text in it\n    mend it: make.py:3" in told
    assert not any((cache_at(None, os.environ).root / "prepared").iterdir())


def test_one_that_writes_nothing_and_one_that_is_killed_are_told(tmp_path: Path) -> None:
    assert "make:count wrote no file" in refusal(recipe_of(tmp_path, code="def count(assets, folder):\n    pass\n"))
    code = "import os\ndef count(assets, folder):\n    os.kill(os.getpid(), 9)\n"
    assert "make:count ended with exit code -9" in refusal(recipe_of(tmp_path, code=code))


def test_other_bytes_from_the_same_declaration_are_refused(tmp_path: Path) -> None:
    code = "import os\ndef count(assets, folder):\n    (folder / 'pid').write_text(str(os.getpid()))\n"
    recipe = recipe_of(tmp_path, code=code)
    path = staged(recipe).assets[1].path / "pid"
    path.unlink()
    told = refusal(recipe)
    assert "pid is not what was locked, although nothing else has changed" in told and "chance in the code?" in told


def test_nothing_is_prepared_of_what_could_not_be_had(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    recipe.write_text(recipe.read_text().replace("iris.csv", "no.csv"))
    told = refusal(recipe)
    assert "assets.iris.path" in told and "counts" not in told


@pytest.mark.parametrize(
    ("prepared", "what"),
    [
        ("{prepare: 'make:count', of: [irs]}", "there is no asset 'irs'\n    did you mean 'iris'?"),
        ("{prepare: 'make:count', of: [counts]}", "'counts' is prepared itself"),
        ("{prepare: 'make:count'}", "of is missing: a prepare asset needs it"),
        ("{prepare: 'make:counts', of: [iris]}", "defines no 'counts'\n    did you mean 'count'?"),
    ],
)
def test_what_it_is_made_of_must_be_there(tmp_path: Path, prepared: str, what: str) -> None:
    ended = orchestrate("plan", str(recipe_of(tmp_path, prepared=prepared)), cwd=tmp_path)
    assert ended.returncode == 2 and what in ended.stderr
