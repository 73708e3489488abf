"""The recipe's modules, importable by their own names, as they are for each other."""

from __future__ import annotations

import sys

import pytest

from tests.recipes.translation.own_run import RECIPES, SMALL, TRAINED, place_at
from tests.recipes.workplace import Workplace

sys.path.insert(0, str(RECIPES))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Two ranks have learnt our own sentences, to the end."""
    place = place_at(tmp_path_factory.mktemp("translation") / "recipe", *SMALL, *TRAINED)
    for words in (("stage",), ("submit", "--wait")):
        ended = place.orchestrate(*words)
        assert ended.returncode == 0, ended.stderr
    return place
