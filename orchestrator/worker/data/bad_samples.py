"""Training samples that raise, skipped within a budget that all ranks count together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from orchestrator.errors import Problem, TrainingError
from orchestrator.tracking.journal import Journal
from orchestrator.worker.data.datasets import MicroBatch
from orchestrator.worker.data.parts import BadSample
from orchestrator.worker.progress import Progress
from orchestrator.worker.world import Peers


@dataclass
class BadSamples:
    """How many may be skipped in the whole run; how many have been, stands in `progress` and in checkpoints."""

    allowed: int
    progress: Progress
    journal: Journal
    peers: Peers
    _last: BadSample | None = field(default=None, init=False)

    def note(self, window: Sequence[MicroBatch], step: int) -> None:
        """Journal what this rank has skipped in the window of `step`. A collective, where any may be skipped.

        Raises TrainingError, on every rank, when it is more than is allowed.
        """
        if not self.allowed:
            return
        bad = [sample for batch in window for sample in batch.bad]
        for sample in bad:
            self.journal.event("bad_sample", {"step": step, **asdict(sample)})
            self._last = sample
        self.progress.skipped_samples += self.peers.sum_counts([len(bad)])[0]
        if self.progress.skipped_samples > self.allowed:
            what = f"{self.progress.skipped_samples} samples could not be had, and loader.bad_samples is {self.allowed}"
            told = f"; the last one here: {self._last}" if self._last else ""
            fix = "mend the data (events bad_sample in the journal name each), or allow more"
            raise TrainingError(Problem(f"step {step}", what + told, fix))
