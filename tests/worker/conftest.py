"""What several tests of the training loop compare with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from orchestrator.run_dir import RunDir
from tests.support.threads import one_thread
from tests.support.worlds import make_run, run_world
from tests.worker.recipes import CODE, POINTS


@pytest.fixture(scope="session", autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def small_numbers() -> Iterator[None]:
    """What trains on a CPU in the tests' own process makes zeros of them there, and strategies of floats fail then."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The points recipe in fp64, in one process, from the beginning to the end."""
    run = make_run(tmp_path_factory.mktemp("uninterrupted") / "run", POINTS, CODE)
    run_world(run, 1)
    return run
