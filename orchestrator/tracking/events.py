"""Names in the journal that a report reads, for who writes them and who reads them: events and metrics."""

from __future__ import annotations

TUNING = "tuning"
"""Rank 0: what was changed, or would be, and what came of it; `knob` says of what."""
WORKERS, PREFETCH, PRECISION, MICRO = "loader.workers", "loader.prefetch", "precision", "batch.micro"
"""Knobs."""
ADVICE = "advice"
"""Rank 0: what would help, and nobody can change in a running job."""
GPU = "gpu"
"""A supervisor: a GPU that is lost, a driver that is silent."""

STEP_TIME, DATA_WAIT = "train/step_time_s", "train/data_wait"
"""Of each step: seconds since the one before, or since the evaluation or save after that one; and what share of them
was a wait for data, the mean of the ranks."""
EXCHANGE = "train/exchange_s"
"""Of a step now and then, where there are several ranks: seconds of exchanging gradients after the last rank's backward
pass."""
OBSERVED_PEAK, PREDICTED_PEAK = "memory/observed_peak_gib", "memory/predicted_peak_gib"
"""At the end of an attempt: the highest peak of any rank, and what the plan predicted where it did."""
