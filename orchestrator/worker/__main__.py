"""One rank: `python -m orchestrator.worker RUN_DIR ATTEMPT`, started by torchrun."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

from orchestrator.run_dir import RunDir
from orchestrator.worker.failure import end, end_failed
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.pulse import Pulse


def main(run_dir: str, attempt_number: str) -> None:
    """Train; a signal is heeded from the first moment on, while torch is still being imported.

    The process ends at once, by os._exit. After a failure, taking down a broken process group or waiting for a loader
    that hangs would keep torchrun from noticing; after a good end, a thread of a communication library that is still
    there sometimes aborts the process ("terminate called without an active exception").
    """
    stop = StopRequest()
    stop.install()
    pulse = Pulse.of_rank(os.environ)
    run = RunDir(Path(run_dir).resolve())
    attempt = run.attempt(int(attempt_number))
    try:
        from orchestrator.worker.train import train

        train(run, attempt, os.environ, stop, pulse)
    except BaseException as error:
        rank = int(os.environ.get("RANK", 0))
        end_failed(attempt.error(rank), error, rank=rank, user_folder=run.snapshot_recipe)
    atexit._run_exitfuncs()
    end(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
