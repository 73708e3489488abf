"""Eight mistakes of eight kinds: one go tells them all, for people and for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.command_line import orchestrate

FOLDER = Path(__file__).parent.parent / "recipes_bad"


def test_eight_planted_mistakes_are_eight_problems_with_their_lines_and_columns() -> None:
    done = orchestrate("plan", "eight_mistakes.yaml", cwd=FOLDER)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (FOLDER / "eight_mistakes.txt").read_text() + "8 problems\n"
    assert len(re.findall(r"^eight_mistakes\.yaml:\d+:\d+", done.stderr, re.MULTILINE)) == 8


def test_with_json_the_problems_are_data_with_their_places() -> None:
    done = orchestrate("plan", "eight_mistakes.yaml", "--json", "--set", "seed=a:2:3", cwd=FOLDER)
    assert (done.returncode, done.stderr) == (2, "")
    override, *problems = json.loads(done.stdout)["problems"]
    assert len(problems) == 8
    assert [f"{problem['file']}:{problem['line']}:{problem['column']} {problem['key']}" for problem in problems] == [
        problem["where"] for problem in problems
    ]
    assert problems[-1] == {
        "where": "eight_mistakes.yaml:15:45 resources.walltime",
        "file": "eight_mistakes.yaml",
        "line": 15,
        "column": 45,
        "key": "resources.walltime",
        "what": "text is wanted, found unquoted 2:00:00, which YAML reads as the number 7200",
        "fix": 'put the value in quotes: "2:00:00"',
    }
    assert (override["where"], override["key"], override["file"]) == ("--set seed=a:2:3", "seed", None)


@pytest.mark.parametrize("verb", ["plan", "submit"])
def test_one_problem_needs_no_count_and_is_data_too(verb: str, tmp_path: Path) -> None:
    told = orchestrate(verb, "none.yaml", cwd=tmp_path)
    fix = "check the path, which is taken from the current folder"
    assert (told.returncode, told.stderr) == (2, f"none.yaml: there is no such file\n    {fix}\n")
    data = orchestrate(verb, "none.yaml", "--json", cwd=tmp_path)
    assert (data.returncode, data.stderr) == (2, "")
    (problem,) = json.loads(data.stdout)["problems"]
    assert (problem["file"], problem["line"], problem["what"]) == ("none.yaml", None, "there is no such file")


def test_a_recipe_and_a_profile_are_told_together() -> None:
    profile = FOLDER.parent / "profiles_bad" / "five_mistakes.yaml"
    done = orchestrate("plan", "eight_mistakes.yaml", "--cluster", profile, cwd=FOLDER)
    assert done.returncode == 2
    assert done.stderr.endswith("\n13 problems\n")


def test_a_file_over_the_size_cap_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("a: b\n" * 300_000)
    done = orchestrate("plan", "big.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "big.yaml: larger than 1 MiB\n    name the YAML file; data does not belong in it\n",
    )
