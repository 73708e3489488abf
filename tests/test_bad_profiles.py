"""Every broken profile in tests/profiles_bad gives exactly the text that stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ClusterError
from orchestrator.profile import read_profile

FOLDER = Path(__file__).parent / "profiles_bad"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_profile_says_where_what_and_what_to_write_instead(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(ClusterError) as caught:
        read_profile(f"{name}.yaml")
    assert f"{caught.value}\n" == (FOLDER / f"{name}.txt").read_text()
    assert all(problem.fix for problem in caught.value.problems)
    assert caught.value.exit_code == 2


def test_every_expected_text_has_its_profile() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.txt")) == NAMES
