"""Every broken recipe in tests/recipes_bad gives exactly the text that stands beside it, and runs none of its code."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import RecipeError
from orchestrator.plan.effective import BATCH_CHECKS
from orchestrator.recipe.read import read_recipe
from orchestrator.recipe.targets import target_checks

FOLDER = Path(__file__).parent.parent / "recipes_bad"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def refusal(name: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        read_recipe(f"{name}.yaml", checks=(*target_checks(Path()), *BATCH_CHECKS))
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_recipe_says_where_what_and_what_to_write_instead(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    error = refusal(name)
    assert f"{error}\n" == (FOLDER / f"{name}.txt").read_text()
    assert all(problem.fix for problem in error.problems)
    assert all("\n" not in line for problem in error.problems for line in (problem.where, problem.what, problem.fix))
    assert error.exit_code == 2


def test_every_expected_text_has_its_recipe_and_names_it() -> None:
    texts = {file.stem: file.read_text() for file in FOLDER.glob("*.txt")}
    assert sorted(texts) == NAMES
    assert all(text.startswith(f"{name}.yaml") for name, text in texts.items())
    assert not any("pydantic" in text or "Traceback" in text for text in texts.values())
