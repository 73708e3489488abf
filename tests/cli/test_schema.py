"""`orchestrate schema`: the JSON Schema on stdout, and the editor's line in the help."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_line import orchestrate

SHIPPED = Path(__file__).parent.parent.parent / "schemas" / "recipe.schema.json"


def test_the_shipped_file_is_the_verbs_own_output_byte_for_byte(tmp_path: Path) -> None:
    done = orchestrate("schema", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == SHIPPED.read_text(), "run: orchestrate schema > schemas/recipe.schema.json"


def test_a_profile_has_a_schema_of_its_own(tmp_path: Path) -> None:
    assert json.loads(orchestrate("schema", "profile", cwd=tmp_path).stdout)["title"] == "orchestrate profile"


def test_the_help_shows_the_line_for_a_recipe_of_ones_own(tmp_path: Path) -> None:
    shown = orchestrate("schema", "--help", cwd=tmp_path).stdout
    assert "# yaml-language-server: $schema=recipe.schema.json\n" in shown
    assert "orchestrate schema > recipe.schema.json\n" in shown
