"""Children that cannot outlive their parent, and signals taken one at a time. Standard library only.

A supervised process is started in a session of its own, so a terminal's Ctrl-C reaches only the one who is to decide;
and the kernel ends it when its parent dies, however that happens (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

STOP_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
)
"""What asks a run to save and end."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """From now on the kernel sends this process `number` when the thread that started it ends. Survives exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def hold_signals() -> None:
    """Keep STOP_SIGNALS and SIGCHLD pending for `next_signal`. Call it in the main thread before there are others."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, signal.SIGCHLD))


def next_signal(timeout_s: float) -> signal.Signals | None:
    """Wait for one of STOP_SIGNALS, at most `timeout_s`; None when there was none, or when a child ended."""
    info = signal.sigtimedwait((*STOP_SIGNALS, signal.SIGCHLD), max(timeout_s, 0.0))
    if info is None or info.si_signo == signal.SIGCHLD:
        return None
    return signal.Signals(info.si_signo)


def start_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: IO[bytes] | None = None,
    at_parents_death: signal.Signals = signal.SIGKILL,
    ignored: Iterable[signal.Signals] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with every signal unblocked, that ends when this process does.

    `output` takes its stdout and stderr (default: ours). `ignored` signals stay ignored until the program sets
    handlers of its own. Call it in the main thread, before there are others: the kernel watches the thread.
    """
    parent, ignored = os.getpid(), tuple(ignored)

    def before_exec() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        die_with_parent(at_parents_death)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        argv,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
        preexec_fn=before_exec,
    )


def handles_signal(pid: int, number: signal.Signals) -> bool:
    """True when process `pid` has set a handler for `number` (proc(5), SigCgt); False when it has not, or is gone."""
    try:
        with Path(f"/proc/{pid}/status").open("rb") as status:
            mask = next(line for line in status if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)
