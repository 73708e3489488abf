"""What the tests of submission share."""

from __future__ import annotations

from pathlib import Path

import pytest

DEV = """
name: fake
scheduler: slurm
accelerator: cpu
gpu_request: gres
partitions:
  debug: {nodes: {num_nodes: 4, gpus: 4, cpus: 8}, default: true}
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder of a person who submits to a pretended Slurm, with its profile."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "fake.yaml").write_text(DEV)
    return folder
