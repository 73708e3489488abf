"""A mirror with a real tokenizer, and a home of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_mirror import HubMirror, Repository, hub_mirror, trained_tokenizer

HF_VARIABLES = ("HF_HOME", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE")


@pytest.fixture(scope="session")
def tokenizer_files() -> dict[str, bytes]:
    return trained_tokenizer()


@pytest.fixture
def mirror(tokenizer_files: dict[str, bytes]) -> Iterator[HubMirror]:
    """A hub with one repository, acme/words."""
    with hub_mirror() as mirror:
        mirror.repositories["acme/words"] = Repository(dict(tokenizer_files))
        yield mirror


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no token and no mirror of the person who runs the tests."""
    for name in (*HF_VARIABLES, "ORCHESTRATE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    monkeypatch.chdir(tmp_path)
