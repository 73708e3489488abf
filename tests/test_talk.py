"""Talk never ends what talks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_log_on_a_full_disk_is_no_reason_to_end() -> None:
    code = "from orchestrator.talk import tell; tell('no room'); tell('for this'); import os; os._exit(7)"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, timeout=30, check=False)
    assert done.returncode == 7
