"""`python -m tests.job.drive RUN FORWARDER...`: the driver itself, beside a forwarder that is any program."""

import sys
from pathlib import Path

from orchestrator.job.__main__ import drive
from orchestrator.run_dir import RunDir

if __name__ == "__main__":
    sys.exit(drive(RunDir(Path(sys.argv[1])), forwarder=sys.argv[2:]))
