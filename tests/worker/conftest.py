"""What several tests of the training loop compare with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from orchestrator.run_dir import RunDir
from tests.support.worlds import make_run, run_world
from tests.worker.recipes import CODE, POINTS


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors in this process on busy cores: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The points recipe in fp64, in one process, from the beginning to the end."""
    run = make_run(tmp_path_factory.mktemp("uninterrupted") / "run", POINTS, CODE)
    run_world(run, 1)
    return run
