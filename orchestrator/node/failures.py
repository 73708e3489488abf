"""Which ranks failed first, as torchrun tells it in its own log. Pure.

torchrun knows every exit status and keeps none but in a table that it prints. Ranks that it ended itself after the
first failure were alive until then: they are not the cause.
"""

from __future__ import annotations

import re

_BLOCK = re.compile(r"rank +: (\d+) \(local_rank: \d+\)\s+exitcode +: (-?\d+) +\(pid: (\d+)\)")
_ENDED_BY_TORCHRUN = re.compile(r"Sending process (\d+) closing signal")
_ROOT_CAUSE = "Root Cause (first observed failure):"
SIGNAL_SEEN = "death signal, shutting down workers"
"""What torchrun writes when it has got a signal and hands it to its ranks."""


def failed_ranks(log: str) -> list[dict[str, int]]:
    """`[{"rank", "exit_code"}]` of the ranks that ended by themselves, the one that torchrun saw first in front.

    An exit code below zero is the signal that ended the rank.
    """
    ended = set(_ENDED_BY_TORCHRUN.findall(log))
    others, _, root = log.partition(_ROOT_CAUSE)
    blocks = _BLOCK.findall(root) + _BLOCK.findall(others)
    return [{"rank": int(rank), "exit_code": int(code)} for rank, code, pid in blocks if pid not in ended]
