"""The one process that talks to MLflow: `python -m orchestrator.tracking.forward RUN (--create | --follow | --drain)`.

Exit codes: 0 done, or asked to end while following · 2 no run directory · 3 another forwarder is at work on this run ·
4 MLflow could not be reached in time (`--create`, `--drain`), or was interrupted there; the journal keeps everything.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.files import PRIVATE_FILE, make_private_dir
from orchestrator.run_dir import RunDir
from orchestrator.tracking.forwarder import Forwarder, GaveUp, Interrupted, append_line
from orchestrator.units import format_count

OK, BUSY, UNREACHABLE = 0, 3, 4
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PATIENCE_S = 30.0
_NICENESS = 5
_MODES = {
    "create": "find or create the MLflow run, and describe it",
    "follow": "replay the journal as it grows, until the run is over",
    "drain": "replay what there is, and finish the MLflow run if the run is over",
}


class Busy(Exception):
    """Another forwarder holds the lock. The message says which."""


@contextlib.contextmanager
def only_writer(run: RunDir) -> Iterator[None]:
    """Hold the run's forwarder lock; raises Busy at once when another process does, on whichever host."""
    fd = os.open(make_private_dir(run.forward) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(fd, "r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise Busy(file.read().strip() or "unknown") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _pause(seconds: float) -> bool:
    """Sleep; True as soon as one of the signals, which are blocked, has come."""
    return signal.sigtimedwait(_SIGNALS, seconds) is not None


def _speaker(run: RunDir, *, aloud: bool) -> Callable[[str], None]:
    """Lines for a person: always into forward/forward.log, aloud on stderr too."""

    def say(line: str) -> None:
        append_line(run.forward / "forward.log", f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}")
        if aloud:
            print(line, file=sys.stderr)

    return say


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.tracking.forward", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    mode = parser.add_mutually_exclusive_group(required=True)
    for name, what in _MODES.items():
        mode.add_argument(f"--{name}", action="store_const", dest="mode", const=name, help=what)
    parser.add_argument(
        "--timeout-s", type=float, default=_PATIENCE_S, help="how long MLflow may stay silent (not with --follow)"
    )
    return parser.parse_args(argv)


def _report(forwarder: Forwarder) -> None:
    """One line on stdout: what MLflow has of what the journal holds."""
    noted = forwarder.noted()
    total = noted.points + forwarder.count_waiting()
    line = f"{format_count(noted.points)} of {format_count(total)} points are in MLflow"
    line += f", {noted.rejected} refused (forward/rejected.log)" if noted.rejected else ""
    line += f", {noted.damaged} damaged journal lines skipped" if noted.damaged else ""
    print(f"{line}; the run is {'complete' if noted.complete else 'not complete'}")


def _forward(run: RunDir, mode: str, timeout_s: float) -> int:
    say = _speaker(run, aloud=mode != "follow")
    patience_s = None if mode == "follow" else timeout_s
    forwarder = Forwarder(run, patience_s=patience_s, pause=_pause, say=say)
    code = OK
    try:
        with only_writer(run):
            {"create": forwarder.create, "follow": forwarder.follow, "drain": forwarder.drain}[mode]()
    except Busy as busy:
        print(f"{run.path}: another forwarder is at work on this run: {busy}", file=sys.stderr)
        return BUSY
    except Interrupted:
        code = OK if mode == "follow" else UNREACHABLE
    except GaveUp as error:
        say(f"MLflow could not be reached within {timeout_s:g} s; the journal keeps everything: {error}")
        code = UNREACHABLE
    if mode == "drain":
        _report(forwarder)
    return code


def main(argv: list[str] | None = None) -> int:
    """Run one mode. Signals are looked at between batches only, so a batch in hand is always finished."""
    arguments = _arguments(argv)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.umask(0o077)
    if arguments.mode == "follow":
        os.nice(_NICENESS)
    try:
        return _forward(RunDir(arguments.run_dir.absolute()), arguments.mode, arguments.timeout_s)
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
