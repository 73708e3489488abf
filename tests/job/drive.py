"""`python -m tests.job.drive RUN FORWARDER...`: the driver itself, beside a forwarder that is any program."""

import sys
from pathlib import Path
from unittest import mock

from orchestrator.job import __main__ as driver

if __name__ == "__main__":
    with mock.patch.object(driver, "forwarder_command", lambda run: tuple(sys.argv[2:])):
        sys.exit(driver.main([str(Path(sys.argv[1]))]))
