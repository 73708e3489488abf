"""Shorter windows, for this process: six steps tell enough where each is as long as the others."""

from __future__ import annotations

from orchestrator.tuning import amp_law
from orchestrator.worker.tuning import amp_tuner, step_times

SHORT = (
    (step_times, "LEAST_STEPS", 6),
    (step_times, "WINDOW_S", 0.05),
    (amp_tuner, "_LEAST_STEPS_LEFT", 20),
    (amp_law, "MOST_WAIT_SHARE", 1.0),  # a machine that does much else waits
    (amp_law, "MOST_EXCHANGE_SHARE", 1.0),
)


def shorten() -> None:
    """For the rest of this process."""
    for module, name, value in SHORT:
        setattr(module, name, value)
