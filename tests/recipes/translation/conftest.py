"""The recipe's modules, importable by their own names, as they are for each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from tests.recipes.translation.own_run import RECIPES, SMALL, TRAINED, Workplace

sys.path.insert(0, str(RECIPES))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads are slower where others are at work too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Two ranks have learnt our own sentences, to the end."""
    place = Workplace.at(tmp_path_factory.mktemp("translation") / "recipe", *SMALL, *TRAINED)
    for words in (("stage",), ("submit", "--wait")):
        ended = place.orchestrate(*words)
        assert ended.returncode == 0, ended.stderr
    return place
