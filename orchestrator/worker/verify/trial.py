"""One trial: a recipe's first steps on one world, through the very loop that trains, and what there is to compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from orchestrator.files import make_private_dir, write_json
from orchestrator.plan.plan import Plan
from orchestrator.plan.verification import Case, PrecisionName
from orchestrator.recipe.data import Tuning
from orchestrator.recipe.schema import Recipe
from orchestrator.run_dir import RunDir
from orchestrator.tracking.journal import Journal
from orchestrator.worker.data.datasets import Datasets, MicroBatch
from orchestrator.worker.inputs import Inputs
from orchestrator.worker.precision import Precision
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.progress import Progress
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.train import UserParts, make_trainer, make_user_parts
from orchestrator.worker.verify.per_sample import PerSampleRandomness
from orchestrator.worker.verify.witness import Witness
from orchestrator.worker.world import Peers

NODE = "verification"
Variant = Literal["as it is", "rotated", "eval"]


@dataclass(frozen=True)
class Trial:
    """One case in one precision; `number` names its files."""

    number: int
    case: Case
    precision: PrecisionName
    steps: int
    variant: Variant = "as it is"
    """rotated: the samples of a micro-batch in another order; eval: the model in eval mode."""


@dataclass(frozen=True)
class Question:
    """The recipe in question, its plan, and the folder of all files: a run directory with the code and journals."""

    run: RunDir
    recipe: Recipe
    plan: Plan

    def inputs(self, case: Case, precision: PrecisionName) -> Inputs:
        """What a rank would be given for `case`: no validation, no loader processes, and the sample ids journalled.

        The model is not compiled: what is drawn by sample, and what each module gives, could not be seen in it.
        """
        recipe = self.recipe.model_copy(
            update={
                "precision": precision,
                "validation": (),
                "compile": False,
                "loader": self.recipe.loader.model_copy(update={"workers": 0, "pin_memory": False}),
                "tuning": Tuning(workers="off", amp="off"),
                "tracking": self.recipe.tracking.model_copy(update={"sample_ids": True}),
            }
        )
        topology = replace(self.plan.topology, num_nodes=1, gpus_per_node=case.world_size, accelerator="cpu")
        batch = replace(self.plan.batch, largest_micro_batch=case.largest_micro_batch)
        plan = replace(self.plan, topology=topology, batch=batch)
        return Inputs(
            self.run,
            self.run.attempt(0),
            recipe,
            plan,
            fingerprint="",
            node=NODE,
            nodes=(NODE,),
            accelerator="cpu",
            new_order=False,
        )

    def trial_file(self, trial: Trial, name: str) -> Path:
        """Where a trial leaves something."""
        return self.run.path / "trials" / f"{trial.number:03d}.{name}"


@dataclass(frozen=True)
class NoCheckpoints:
    """A run that begins at the beginning and leaves nothing."""

    scaler: torch.amp.GradScaler

    def save(self, progress: Progress, *, last: bool) -> None:
        """Save nothing."""

    def would_be_best(self, progress: Progress) -> bool:
        """Nothing is kept."""
        return False

    def restore(self) -> Progress | None:
        """There is nothing to go on from."""
        return None


def run_trial(question: Question, trial: Trial, peers: Peers) -> None:
    """Train one rank of it. Left behind: its journal; what its samples were; from rank 0 the last parameters."""
    inputs, rank = question.inputs(trial.case, trial.precision), peers.world.rank
    precision = Precision(trial.precision, peers.device)
    precision.begin()
    parts, other_shapes = make_user_parts(inputs, precision), set[tuple[int, ...]]()
    witness = Witness(parts.training, rotated=trial.variant == "rotated")
    parts = replace(parts, training=cast(Datasets, witness))
    if trial.variant == "eval":
        parts.model.eval()
    with Journal(question.run.path, attempt=trial.number, node=NODE, rank=rank) as journal:
        _train(inputs, parts, precision, peers, journal, trial.steps, other_shapes)
    make_private_dir(question.run.path / "trials")
    facts = {"seen": witness.seen, "other_shapes": sorted(other_shapes)}
    if rank == 0:
        torch.save(dict(parts.model.named_parameters()), question.trial_file(trial, "pt"))
    write_json(question.trial_file(trial, f"rank-{rank}.json"), facts)
    peers.wait()


def _train(
    inputs: Inputs,
    parts: UserParts,
    precision: Precision,
    peers: Peers,
    journal: Journal,
    steps: int,
    other_shapes: set[tuple[int, ...]],
) -> None:
    seed = inputs.recipe.seed

    def by_sample(batch: MicroBatch, step: int) -> Any:
        return PerSampleRandomness(batch.ids, seed=seed, step=step, other_shapes=other_shapes)

    checkpoints = NoCheckpoints(precision.scaler)
    trainer = make_trainer(inputs, parts, precision, peers, journal, StopRequest(), checkpoints, Pulse())
    cadences = trainer.course.cadences
    last = min(cadences.total_samples, steps * inputs.plan.batch.effective_batch_size)
    trainer.course.cadences = replace(cadences, total_samples=last, save_every_samples=None, save_every_s=None)
    trainer.window_step.around_micro_step = by_sample
    trainer.run()
    trainer.batches.close()
