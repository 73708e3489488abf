"""The end of a world: no rank may wait for itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NUM_ENDS = 150
"""Without care the 1st, the 14th and the 81st hung in three trials."""
RANK = """
import sys
import torch, torch.distributed as dist
from orchestrator.worker.world import World
rank, folder, num_ends = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
world = World(rank, 2, rank, 2, 0)

def end(index):
    with world.connected(torch.device("cpu"), store=dist.FileStore(f"{folder}/{index}", 2)) as peers:
        model = peers.distribute(torch.nn.Linear(2, 2))
        model(torch.ones(1, 2)).sum().backward()

for index in range(num_ends):
    end(index)
"""


def test_a_world_that_has_trained_to_its_end_never_hangs_when_it_is_taken_down(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path), str(NUM_ENDS)], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        for rank in (0, 1)
    ]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
