"""Processes that open the pulse of a rank, and then give signs or none."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.pulse import make_pulse
from orchestrator.run_dir import PULSE_VARIABLE

RANK = """
import os, sys, time
from orchestrator.pulse import Phase
from orchestrator.worker.pulse import Pulse
pulse = Pulse.of_rank(os.environ)
pulse.took(Phase.STEP, 0.001)
pulse.stepped(int(sys.argv[1]))
def wait_for_ever(beats):
    print(flush=True)
    while True:
        time.sleep(0.05)
        if beats:
            pulse.beat()
wait_for_ever(sys.argv[2] == "beats")
"""


@contextlib.contextmanager
def rank_process(folder: Path, rank: int, *, step: int = 7, beats: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A rank that has made `step`, and gives signs after that if it `beats`."""
    make_pulse(folder, rank)
    env = {**os.environ, PULSE_VARIABLE: str(folder), "RANK": str(rank)}
    command = [sys.executable, "-c", RANK, str(step), "beats" if beats else "silent"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()
