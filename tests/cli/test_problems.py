"""Eight mistakes of eight kinds: one go tells them all, for people and for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.command_line import orchestrate

FOLDER = Path(__file__).parent.parent / "recipes_bad"


def test_eight_planted_mistakes_are_eight_problems_with_their_lines_and_columns() -> None:
    done = orchestrate("plan", "eight_mistakes.yaml", cwd=FOLDER)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (FOLDER / "eight_mistakes.txt").read_text() + "8 problems\n"
    assert len(re.findall(r"^eight_mistakes\.yaml:\d+:\d+", done.stderr, re.MULTILINE)) == 8


def test_with_json_the_problems_are_data_with_their_places(tmp_path: Path) -> None:
    done = orchestrate("plan", "eight_mistakes.yaml", "--json", cwd=FOLDER)
    assert (done.returncode, done.stderr) == (2, "")
    problems = json.loads(done.stdout)["problems"]
    assert len(problems) == 8
    walltime = problems[-1]
    assert (walltime["file"], walltime["line"], walltime["column"]) == ("eight_mistakes.yaml", 15, 45)
    assert (walltime["key"], walltime["fix"]) == ("resources.walltime", 'put the value in quotes: "2:00:00"')


def test_a_file_over_the_size_cap_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("a: b\n" * 300_000)
    done = orchestrate("plan", "big.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "big.yaml: larger than 1 MiB\n    name the YAML file; data does not belong in it\n",
    )
