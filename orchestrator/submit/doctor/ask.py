"""Questions that may hang, put to a process that can be left behind."""

from __future__ import annotations

import json
import sys
from typing import Any

from orchestrator.errors import Problem, SubmissionError
from orchestrator.submit.commands import last_line, run_command

PROBE_TIMEOUT_S = 5.0


def ask_probe(*words: str) -> dict[str, Any]:
    """What `orchestrator.submit.doctor.probe` says. Raises SubmissionError when it does not answer in 5 s, or fails."""
    argv = (sys.executable, "-m", "orchestrator.submit.doctor.probe", *words)
    done = run_command(argv, timeout_s=PROBE_TIMEOUT_S)
    if done.returncode:
        last = last_line(done.stderr, f"exit code {done.returncode}")
        raise SubmissionError(Problem(words[0], last))
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
