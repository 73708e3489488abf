"""Worlds of forked ranks on this machine: torch is imported once, and nothing of them outlives whoever forked them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from orchestrator.failure_kinds import PEER_LOST
from orchestrator.files import make_private_dir, read_json
from orchestrator.processes import die_with_parent
from orchestrator.worker.failure import write_failure
from orchestrator.worker.world import Peers, World

Work = Callable[[Peers], None]
"""What each rank does once it is connected."""


def run_world(world_size: int, work: Work, *, folder: Path, user_folder: Path) -> str:
    """Fork `world_size` connected CPU ranks, each in its own folder of files; '' when all went well, else why not.

    The first rank that fails ends the others. Call it only while this process has no other threads.
    """
    make_private_dir(folder)
    pids = {
        _fork(World(rank, world_size, rank, world_size, 0), work, folder, user_folder) for rank in range(world_size)
    }
    try:
        while pids:
            pid, status = os.wait()
            pids.discard(pid)
            if status:
                return _why(folder, world_size) or f"a rank ended with status {os.waitstatus_to_exitcode(status)}"
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return ""


def _fork(world: World, work: Work, folder: Path, user_folder: Path) -> int:
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent()
        if os.getppid() == parent:
            _work(world, work, folder)
            status = 0
    except BaseException as error:
        traceback.print_exception(error)
        write_failure(folder / f"error-{world.rank}.json", error, rank=world.rank, user_folder=user_folder)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _work(world: World, work: Work, folder: Path) -> None:
    """Connect over the loopback device and work; user code finds torchrun's variables as it would in a job."""
    own = {"RANK": world.rank, "LOCAL_RANK": world.local_rank, "GROUP_RANK": world.node_rank}
    all_alike = {"WORLD_SIZE": world.world_size, "LOCAL_WORLD_SIZE": world.local_world_size}
    os.environ |= {name: str(value) for name, value in (own | all_alike).items()}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(folder / "store"), world.world_size)  # type: ignore[attr-defined]
    with world.connected(torch.device("cpu"), store=store) as peers:
        work(peers)


def _why(folder: Path, world_size: int) -> str:
    """The message of the rank that failed first; a rank that only lost its peers says less than any other."""
    found = [failure for rank in range(world_size) if (failure := read_json(folder / f"error-{rank}.json"))]
    found.sort(key=lambda failure: (failure["type"] == PEER_LOST, failure["time"]))
    return str(found[0]["message"]) if found else ""
