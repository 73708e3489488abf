"""What a rank leaves when it ends: the peak of its memory, the outcome of the attempt, and no children."""

from __future__ import annotations

import math
import multiprocessing
import time

from orchestrator.checkpoint_names import checkpoint_name
from orchestrator.files import write_json
from orchestrator.run_dir import AttemptDir
from orchestrator.tracking.events import OBSERVED_PEAK, PREDICTED_PEAK
from orchestrator.units import GIB
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.peak import PeakMemory
from orchestrator.worker.preemption import DEADLINE
from orchestrator.worker.progress import Progress
from orchestrator.worker.world import Peers


def memory_peaks(inputs: Inputs, peers: Peers, memory: PeakMemory) -> dict[str, float]:
    """The highest peak of any rank in GiB, beside the predicted one where the plan has a prediction. A collective."""
    peaks = {OBSERVED_PEAK: peers.largest(memory.observed_bytes()) / GIB}
    batch, planned = inputs.plan.batch, inputs.plan.memory
    if planned is not None:
        accumulating = batch.gradient_accumulation_steps > 1
        predicted = planned.predicted_peak_bytes(batch.micro_batch_size, accumulating=accumulating)
        peaks[PREDICTED_PEAK] = predicted / GIB
    return peaks


def write_outcome(attempt: AttemptDir, progress: Progress, stopped_by: str | None) -> None:
    """done.json, or stop.json when a signal or the deadline asked for the end. The checkpoint it names is committed."""
    outcome = {
        "step": progress.step,
        "consumed_samples": progress.consumed_samples,
        "checkpoint": checkpoint_name(progress.step),
        "time": time.time(),
    }
    if stopped_by:
        asked = {"deadline": True} if stopped_by == DEADLINE else {"signal": stopped_by}
        write_json(attempt.stop, {**asked, **outcome})
    else:
        metrics = {name: value if math.isfinite(value) else str(value) for name, value in progress.metrics.items()}
        write_json(attempt.done, {**outcome, "metrics": metrics})


def end_children() -> None:
    """Kill loader processes that did not end when told to: they ignore SIGTERM, and exiting would wait for them."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
