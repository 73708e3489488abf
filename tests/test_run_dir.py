"""The names in a run directory: what is found there, whatever else lies beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.files import make_private_dir
from orchestrator.run_dir import RunDir


def checkpoint(run: RunDir, name: str, *, is_complete: bool = True) -> None:
    folder = make_private_dir(run.checkpoints / name)
    if is_complete:
        (folder / "COMMIT").touch()


def test_the_newest_checkpoint_is_the_last_one_that_is_complete(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    make_private_dir(run.checkpoints)
    assert run.newest_checkpoint_step() is None
    checkpoint(run, "step-00000009")
    checkpoint(run, "step-100000000")
    checkpoint(run, "step-00000030")
    checkpoint(run, "step-200000000", is_complete=False)
    assert run.newest_checkpoint_step() == 100_000_000


@pytest.mark.parametrize("name", ["step-00000012-old", "step-00000012.bak", "step-", "step-12", "my-step-00000012"])
def test_a_copy_that_somebody_keeps_beside_the_checkpoints_is_none(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path)
    make_private_dir(run.checkpoints)
    checkpoint(run, name)
    assert run.newest_checkpoint_step() is None
    checkpoint(run, "step-00000003")
    assert run.newest_checkpoint_step() == 3
