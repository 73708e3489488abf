"""A loss that brings a fault about: at its n-th call on one rank, in one attempt or in each, by $FAULT.

FAULT={"rank": 1, "call": 20, "attempt": 0, "do": "kill"}; without `attempt`, in every attempt.
"""

import json
import os
import pathlib
import signal

import model

calls = 0


def cross_entropy(outputs, targets):
    global calls
    calls += 1
    fault = json.loads(os.environ.get("FAULT", "{}"))
    attempt = int(pathlib.Path(os.environ["ORCHESTRATE_ATTEMPT_DIR"]).name)
    here = (int(os.environ["RANK"]), calls, fault.get("attempt", attempt))
    if here == (fault.get("rank"), fault.get("call"), attempt):
        DO[fault["do"]]()
    return model.cross_entropy(outputs, targets)


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_rank():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_torchrun():
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def kill_supervisor():
    os.kill(parent_of(os.getppid()), signal.SIGKILL)
    signal.pause()


def raise_error():
    raise ValueError("this step is bad")


def exhaust_memory():
    """Join a group that may have little memory, and take a gigabyte: this process alone is killed for it."""
    (pathlib.Path(os.environ["MEMORY_GROUP"]) / "cgroup.procs").write_text(str(os.getpid()))
    taken = [bytearray(1 << 20) for _ in range(1024)]
    raise AssertionError(f"{len(taken)} MiB were to be had")


DO = {
    "exhaust memory": exhaust_memory,
    "kill": kill_rank,
    "kill torchrun": kill_torchrun,
    "kill supervisor": kill_supervisor,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": raise_error,
}
