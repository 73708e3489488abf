"""A model on a rank, $BAD_RANK, whose machine is not like the others.

By $BAD_NODE it is `slow` at matrix products, `stuck` in its first, or `deaf` in a sum over all ranks.
"""

import os
import threading
import time

import model
import torch
import torch.distributed as dist


def network():
    if os.environ["RANK"] == os.environ.get("BAD_RANK"):
        {"slow": be_slow, "stuck": be_stuck, "deaf": be_deaf}[os.environ["BAD_NODE"]]()
    return model.network()


def be_slow():
    fast = torch.mm

    def mm(*matrices, **more):
        time.sleep(0.005)
        return fast(*matrices, **more)

    torch.mm = mm


def be_stuck():
    torch.mm = wait_for_nothing


def be_deaf():
    dist.all_reduce = wait_for_nothing


def wait_for_nothing(*_, **__):
    threading.Event().wait()
