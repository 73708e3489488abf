"""Names in the journal that a report reads, for who writes them and who reads them: events, and two metrics."""

from __future__ import annotations

TUNING = "tuning"
"""Rank 0: what was changed, or would be, and what came of it; `knob` says of what."""
WORKERS, PRECISION = "loader.workers", "precision"
"""Knobs."""
ADVICE = "advice"
"""Rank 0: what would help, and nobody can change in a running job."""
GPU = "gpu"
"""A supervisor: a GPU that is lost, a driver that is silent."""

OBSERVED_PEAK, PREDICTED_PEAK = "memory/observed_peak_gib", "memory/predicted_peak_gib"
"""At the end of an attempt: the highest peak of any rank, and what the plan predicted where it did."""
