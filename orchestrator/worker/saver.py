"""Checkpoints as all ranks make them together: rank 0 writes and picks, everyone loads the same."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.tracking.journal import Journal
from orchestrator.worker.checkpoint import SCHEMA, CheckpointStore, load_model, load_optimizer, read_state
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.progress import Progress
from orchestrator.worker.world import Peers

_NO_CHECKPOINT = -1


@dataclass(frozen=True)
class Saver:
    """Checkpoints of this run's model and optimizer."""

    inputs: Inputs
    peers: Peers
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    order_digest: str

    @property
    def _store(self) -> CheckpointStore:
        return CheckpointStore(self.inputs.run.checkpoints, keep=self.inputs.recipe.checkpoint.keep)

    def save(self, progress: Progress) -> None:
        """Rank 0 writes; every rank waits until it is committed."""
        if self.peers.world.rank == 0:
            optimizer = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
            tensors = {"model": self.model.state_dict(), "optimizer": optimizer}
            self._store.save(progress.step, tensors, self._state(progress))
        self.peers.wait()

    def restore(self, journal: Journal) -> Progress | None:
        """Load the newest good checkpoint, which rank 0 picks for all; None when there is none."""
        found = None
        if self.peers.world.rank == 0:
            found = self._store.newest(lambda name, why: journal.event("damaged", {"checkpoint": name, "why": why}))
        step = self.peers.from_first(_NO_CHECKPOINT if found is None else found)
        if step == _NO_CHECKPOINT:
            return None
        checkpoint = self._store.path(step)
        state = read_state(checkpoint, order_digest=self.order_digest)
        load_model(self.model, checkpoint)
        load_optimizer(self.optimizer, self.scaler, checkpoint)
        journal.event("resumed", {"checkpoint": checkpoint.name, "saved_by_world_size": state["world_size"]})
        return Progress.of_state(state)

    def _state(self, progress: Progress) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **progress.as_state(),
            "order_digest": self.order_digest,
            "fingerprint": self.inputs.fingerprint,
            "world_size": self.peers.world.world_size,
            "effective_batch_size": self.inputs.plan.batch.effective_batch_size,
            "precision": self.inputs.recipe.precision,
            "torch": torch.__version__,
            "time": time.time(),
        }
