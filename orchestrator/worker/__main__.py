"""One rank: `python -m orchestrator.worker RUN_DIR ATTEMPT`, started by torchrun."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from orchestrator.run_dir import RunDir
from orchestrator.worker.failure import write_failure
from orchestrator.worker.preemption import StopRequest


def main(run_dir: str, attempt_number: str) -> None:
    """Train; a signal is heeded from the first moment on, while torch is still being imported.

    A failure ends the process at once, by os._exit: taking down a broken process group or waiting for a loader that
    hangs would keep torchrun from noticing.
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
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
