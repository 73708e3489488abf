"""What torchrun starts for each rank: put the output into the rank's own log, then become the rank's program.

`python -m orchestrator.node.rank RUN ATTEMPT -- COMMAND...`. Standard library only, and no process stays in between.
torchrun starts every rank in a session of its own, where no signal to a group reaches it: so the rank asks the kernel
to end it when torchrun dies.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestrator.files import PRIVATE_FILE
from orchestrator.processes import die_with_parent
from orchestrator.run_dir import RunDir

NOT_STARTED = 127
"""Exit status when the command could not be started, as a shell gives it."""


def main(arguments: list[str]) -> int:
    """Become the command; returns only when that failed."""
    run_dir, attempt, _, *command = arguments
    run = RunDir(Path(run_dir))
    die_with_parent()
    _write_into(run.attempt(int(attempt)).rank_log(int(os.environ["RANK"])))
    if command[1:3] != ["-m", "orchestrator.worker"]:
        os.chdir(run.snapshot_recipe)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: cannot be started: {error.strerror}", file=sys.stderr)
        return NOT_STARTED


def _write_into(log: Path) -> None:
    """Append stdout and stderr of this process, and of whatever it becomes, to `log`."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
    os.dup2(fd, 1)
    os.dup2(fd, 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
