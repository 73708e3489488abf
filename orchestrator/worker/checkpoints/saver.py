"""Checkpoints of a run at work: rank 0 writes them beside the training and picks one; every rank loads that one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch

from orchestrator.checkpoint_names import checkpoint_name
from orchestrator.errors import NoRoom, OrchestratorError, Problem, TrainingError
from orchestrator.failure_kinds import LOADER_KILLED, PEER_LOST
from orchestrator.last_save import longest_save_s
from orchestrator.out_of_memory import OUT_OF_MEMORY
from orchestrator.pulse import Phase
from orchestrator.talk import warn
from orchestrator.tracking.journal import Journal
from orchestrator.worker.checkpoints.background import Background
from orchestrator.worker.checkpoints.layout import SCHEMA
from orchestrator.worker.checkpoints.restore import (
    changes_of_order,
    load_model,
    load_more,
    load_optimizer,
    optimizer_state,
    read_state,
    refuse_order,
)
from orchestrator.worker.checkpoints.staging import Staging
from orchestrator.worker.checkpoints.store import CheckpointStore
from orchestrator.worker.failure import kind_of, one_line
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.optimizer import norm_of_weights
from orchestrator.worker.precision import Precision
from orchestrator.worker.progress import Progress
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.world import Peers

_NO_CHECKPOINT = -1
_RESCUED = (PEER_LOST, LOADER_KILLED, OUT_OF_MEMORY)
"""Kinds of errors that leave the weights of the last step as they were."""


class Stateful(Protocol):
    """What has a state to save: tensors, numbers and texts alone, in dicts and lists."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass
class Saver:
    """Checkpoints of this run's model and optimizer. On ranks other than 0 saving does nothing."""

    inputs: Inputs
    peers: Peers
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    """A checkpoint has what tuning made of it, and its loss scaler."""
    journal: Journal
    contents: Mapping[str, str] = field(default_factory=dict)
    """By dataset, a hash of what it gives; a resume on other data is refused."""
    more: Mapping[str, Stateful] = field(default_factory=dict)
    """What else is saved, by name: a loop of the user's own may have it."""
    pulse: Pulse = field(default_factory=Pulse)
    """Learns how long a checkpoint takes from whole ones alone: the next save may have to wait for the one before."""
    _staging: Staging = field(default_factory=Staging, init=False)
    _background: Background = field(default_factory=Background, init=False)
    _saved_step: int | None = field(default=None, init=False)
    """The step of the newest checkpoint that is committed; the thread sets it."""

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The run's loss scaler."""
        return self.precision.scaler

    @property
    def _store(self) -> CheckpointStore:
        wanted = self.inputs.recipe.checkpoint
        return CheckpointStore(
            self.inputs.run.checkpoints,
            keep=wanted.keep,
            keep_best=wanted.keep_best,
            before_commit=self.inputs.require_newest,
            before_writing=self._journal_first,
        )

    def _journal_first(self) -> None:
        """Steps that a checkpoint holds are not made again: their journal comes before it. Weights do not wait longer
        than `flush` does for a file system that takes none of it."""
        if not self.journal.flush():
            warn("rank 0: a checkpoint is saved before its journal is")

    def save(self, progress: Progress, *, last: bool) -> None:
        """Copy the state and let a thread write it; the `last` save of an attempt is committed on return.

        Waits for the save before it, and raises what that one failed of. Where there is no room for a checkpoint,
        only the last one raises: else training goes on, with an event and a line.
        """
        if self.peers.world.rank != 0:
            self.journal.flush(timeout_s=0)
            return
        with self.pulse.during(Phase.CHECKPOINT, learns=False):
            self._save(progress, last=last)

    def _save(self, progress: Progress, *, last: bool) -> None:
        began = time.perf_counter()
        self._background.settle()
        if self._saved_step == progress.step:
            return
        state = self._state(progress)
        if last:
            self._write(progress.step, self._tensors(), state)
            return
        step, staged = progress.step, self._staging.copy(self._tensors())
        blocked_s = time.perf_counter() - began

        def write() -> None:
            staged.wait()
            try:
                self._write(step, staged.value, state, blocked_s=blocked_s)
            except NoRoom as error:
                self._tell("no_room", step, f"no room for a checkpoint, training goes on: {one_line(error)}")

        self._background.start(write)

    def would_be_best(self, progress: Progress) -> bool:
        """Whether this state was just evaluated, is not saved, and would be kept for its metric. For rank 0 to ask."""
        if self.inputs.recipe.checkpoint.keep_best is None or self.peers.world.rank != 0:
            return False
        return self._saved_step != progress.step and self._store.would_be_best(progress.as_state())

    def rescue(self, error: BaseException, progress: Progress, *, is_whole: bool) -> None:
        """Before the end by `error`: a save under way is finished, and a state that is whole is saved if it is newer.

        That is so only where another rank or a loader process is gone, or memory ran out. With CUDA it is an attempt:
        a device whose communication broke down may not give its memory back. Never raises.
        """
        if self.peers.world.rank != 0:
            return
        self.pulse.enter(Phase.CHECKPOINT)
        try:
            self._background.settle()
        except Exception as failed:
            self._tell("not_saved", progress.step, one_line(failed))
        if kind_of(error) not in _RESCUED or not is_whole or self._saved_step == progress.step:
            return
        try:
            self._write(progress.step, self._tensors(), self._state(progress))
        except Exception as failed:
            self._tell("not_saved", progress.step, f"step {progress.step} could not be saved: {one_line(failed)}")

    def restore(self) -> Progress | None:
        """Load the newest good checkpoint, which rank 0 picks for all; None when there is none."""
        with self.pulse.during(Phase.START, learns=False):
            return self._restore()

    def _restore(self) -> Progress | None:
        found, journal = None, self.journal
        if self.peers.world.rank == 0:
            self._background.settle()
            self.pulse.took(Phase.CHECKPOINT, longest_save_s(self.inputs.run) or 0.0)
            found = self._store.newest(lambda name, why: journal.event("damaged", {"checkpoint": name, "why": why}))
        step = self.peers.from_first(_NO_CHECKPOINT if found is None else found)
        if step == _NO_CHECKPOINT:
            return None
        checkpoint = self._store.path(step)
        state = read_state(checkpoint)
        if changes := changes_of_order(state, self.inputs.order, self.contents):
            if not self.inputs.new_order:
                raise refuse_order(checkpoint, changes)
            journal.event("new_order", {"checkpoint": checkpoint.name, "changes": list(changes)})
            journal.tags({"orchestrate.new_order": f"from step {step}: {', '.join(changes)}"})
        load_model(self.model, checkpoint)
        progress = Progress.of_state(state)
        if self.inputs.recipe.amp_tuning != "auto":
            progress.tuned_precision = None
        self.precision.use(progress.tuned_precision)
        load_optimizer(self.optimizer, self.scaler, checkpoint)
        for name, stateful in self.more.items():
            stateful.load_state_dict(load_more(checkpoint, name))
        journal.event("resumed", {"checkpoint": checkpoint.name, "saved_by_world_size": state["world_size"]})
        self._saved_step = step
        return progress

    def _write(self, step: int, tensors: dict[str, Any], state: dict[str, Any], *, blocked_s: float = 0.0) -> None:
        """Commit one checkpoint. Raises OrchestratorError in one line, NoRoom where it does not fit."""
        began = time.perf_counter()
        try:
            self._store.save(step, tensors, state)
        except OrchestratorError:
            raise
        except Exception as error:
            fix = "look at the file system of the run directory"
            raise TrainingError(Problem(checkpoint_name(step), f"cannot be saved: {one_line(error)}", fix)) from error
        self._saved_step = step
        write_s = time.perf_counter() - began
        self.pulse.took(Phase.CHECKPOINT, blocked_s + write_s)
        self.journal.event("saved", {"step": step, "blocked_s": blocked_s or write_s, "write_s": write_s})

    @cached_property
    def _order_digest(self) -> str:
        return self.inputs.order.digest()

    def _tell(self, event: str, step: int, why: str) -> None:
        self.journal.event(event, {"step": step, "why": why})
        warn(f"rank 0: {why}")

    def _tensors(self) -> dict[str, Any]:
        """What is saved. Raises TrainingError where weights are not finite: they must not outlive good ones."""
        if not math.isfinite(norm := norm_of_weights(self.model)):
            fix = "lower optimizer.lr, set optimizer.clip_norm, or look at the data before this step"
            raise TrainingError(Problem("checkpoint", f"the norm of the weights is {norm}: not saved", fix))
        more = {name: stateful.state_dict() for name, stateful in self.more.items()}
        return {"model": self.model.state_dict(), "optimizer": optimizer_state(self.optimizer, self.scaler), **more}

    def _state(self, progress: Progress) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **progress.as_state(),
            "order": self.inputs.order.describe(),
            "order_digest": self._order_digest,
            "contents": dict(self.contents),
            "fingerprint": self.inputs.fingerprint,
            "world_size": self.peers.world.world_size,
            "effective_batch_size": self.inputs.plan.batch.effective_batch_size,
            "precision": self.inputs.recipe.precision,
            "torch": torch.__version__,
            "time": time.time(),
        }
