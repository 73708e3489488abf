"""One rank: `python -m orchestrator.worker RUN_DIR ATTEMPT`, started by torchrun."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from orchestrator.run_dir import RunDir
from orchestrator.worker.failure import write_failure
from orchestrator.worker.preemption import StopRequest


def main(run_dir: str, attempt_number: str) -> None:
    """Train; a signal is heeded from the first moment on, while torch is still being imported.

    The process ends at once, by os._exit. After a failure, taking down a broken process group or waiting for a loader
    that hangs would keep torchrun from noticing; after a good end, a thread of a communication library that is still
    there sometimes aborts the process ("terminate called without an active exception").
    """
    stop = StopRequest()
    stop.install()
    run = RunDir(Path(run_dir).resolve())
    attempt = run.attempt(int(attempt_number))
    try:
        from orchestrator.worker.train import train

        train(run, attempt, os.environ, stop)
    except BaseException as error:
        traceback.print_exception(error)
        rank = int(os.environ.get("RANK", 0))
        message = write_failure(attempt.error(rank), error, rank=rank, user_folder=run.snapshot_recipe)
        print(f"orchestrate: rank {rank}: {message}", file=sys.stderr)
        end(1)
    atexit._run_exitfuncs()
    end(0)


def end(exit_code: int) -> NoReturn:
    """End this process, its output written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
