"""One attempt on one rank: everything is built from the run directory, trained, and what happened is written down."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.parallel import DistributedDataParallel

from orchestrator.files import write_json
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.tracking.journal import Journal
from orchestrator.units import GIB
from orchestrator.worker.bad_samples import BadSamples
from orchestrator.worker.checkpoint import checkpoint_name
from orchestrator.worker.content import check_contents
from orchestrator.worker.data import Datasets, open_datasets
from orchestrator.worker.evaluation import Evaluator
from orchestrator.worker.inputs import Inputs, read_inputs
from orchestrator.worker.loader import MicroBatches, data_loader
from orchestrator.worker.loss import Objective
from orchestrator.worker.memory_watch import MemoryWatch
from orchestrator.worker.optimizer import make_optimizer
from orchestrator.worker.peak import PeakMemory
from orchestrator.worker.precision import Precision
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.progress import Cadences, Progress
from orchestrator.worker.recompute import recompute_blocks
from orchestrator.worker.saver import Saver
from orchestrator.worker.seeds import seed_torch
from orchestrator.worker.targets import UserCode, build_model
from orchestrator.worker.trainer import Checkpoints, Trainer
from orchestrator.worker.window_step import WindowStep
from orchestrator.worker.windows import Windows
from orchestrator.worker.world import Peers, World


@dataclass(frozen=True)
class UserParts:
    """The user's code at work: what the recipe's targets made."""

    model: torch.nn.Module
    training: Datasets
    validation: dict[str, Datasets]
    objective: Objective
    optimizer: torch.optim.Optimizer
    memory: PeakMemory
    """Counts from just before the model was made."""


def train(run: RunDir, attempt: AttemptDir, env: Mapping[str, str], stop: StopRequest) -> None:
    """Train this attempt to its end or to a signal; rank 0 then leaves done.json or stop.json. Errors are raised."""
    world = World.from_env(env)
    inputs = read_inputs(run, attempt, world)
    device = world.device(inputs.accelerator)
    precision = Precision(inputs.recipe.precision, device)
    parts = make_user_parts(inputs, precision)
    with (
        Journal(run.path, attempt=attempt.number, node=inputs.node, rank=world.rank) as journal,
        world.connected(device) as peers,
    ):
        contents = check_contents(parts.training, parts.validation, peers, journal)
        saver = Saver(inputs, peers, parts.model, parts.optimizer, precision.scaler(), journal, contents)
        trainer = make_trainer(inputs, parts, precision, peers, journal, stop, saver)
        stopped_by = _run(trainer, saver)
        peaks = memory_peaks(inputs, peers, parts.memory)
        if world.rank == 0:
            journal.metrics(trainer.progress.step, peaks)
            write_outcome(attempt, trainer.progress, stopped_by)
        trainer.batches.close()
        trainer.evaluator.close()
    end_children()


def _run(trainer: Trainer, saver: Saver) -> str | None:
    """Train; whatever ends it early, what has been learnt is saved first as far as that can be."""
    try:
        return trainer.run()
    except BaseException as error:
        step = trainer.progress.step
        trainer.tell_what_is_known()
        saver.rescue(error, trainer.progress, is_whole=trainer.window_step.is_whole_at(step))
        raise


def make_user_parts(inputs: Inputs, precision: Precision) -> UserParts:
    """Call the recipe's targets. The model is initialised from the run's seed alone, alike on every rank."""
    recipe, code = inputs.recipe, UserCode(inputs.run.snapshot_recipe)
    assert recipe.model is not None, "a recipe for this loop has a model"
    skips_bad = recipe.loader.bad_samples > 0
    training = open_datasets(code, recipe.datasets, seed=recipe.seed, where="datasets", skips_bad=skips_bad)
    validation = {
        declared.name: open_datasets(code, [declared], seed=recipe.seed, where=f"validation {declared.name}")
        for declared in recipe.validation
    }
    objective = Objective.of(recipe, code)
    memory = PeakMemory.from_now(precision.device)
    seed_torch(recipe.seed, precision.device)
    model = build_model(code, recipe.model)
    model = precision.place_model(model)
    if recipe.activation_checkpointing:
        recompute_blocks(model)
    optimizer = make_optimizer(model.parameters(), recipe.optimizer, code.make)
    return UserParts(model, training, validation, objective, optimizer, memory)


def make_trainer(
    inputs: Inputs,
    parts: UserParts,
    precision: Precision,
    peers: Peers,
    journal: Journal,
    stop: StopRequest,
    saver: Checkpoints,
) -> Trainer:
    """The loop, with weights and position from the newest good checkpoint if there is one."""
    recipe, plan, world = inputs.recipe, inputs.plan, peers.world
    progress = saver.restore() or Progress()
    windows = make_windows(inputs, world_size=world.world_size, rank=world.rank)

    def batches_from(consumed_samples: int) -> MicroBatches:
        draws = windows.draws_from(consumed_samples)
        return MicroBatches(data_loader(parts.training, draws, recipe.loader, device=precision.device))

    return Trainer(
        plan=plan,
        cadences=Cadences.of(recipe, plan),
        progress=progress,
        window_step=WindowStep(
            model=_distributed(parts.model, peers),
            optimizer=parts.optimizer,
            scaler=saver.scaler,
            objective=parts.objective,
            precision=precision,
            windows=windows,
            peers=peers,
            clip_norm=recipe.optimizer.clip_norm,
            seed=recipe.seed,
            memory=MemoryWatch.of(recipe, rank=world.rank, device=precision.device),
            bad_samples=BadSamples(recipe.loader.bad_samples, progress, journal, peers),
        ),
        batches=batches_from(progress.consumed_samples),
        batches_from=batches_from,
        policy=recipe.on_non_finite_loss,
        evaluator=_evaluator(inputs, parts, precision, peers),
        journal=journal,
        peers=peers,
        stop=stop,
        saver=saver,
        journal_ids=recipe.tracking.sample_ids,
    )


def make_windows(inputs: Inputs, *, world_size: int, rank: int) -> Windows:
    """The windows of the run as one rank sees them."""
    plan = inputs.plan
    return Windows(
        order=inputs.order,
        total_samples=plan.schedule.total_samples,
        effective_batch_size=plan.batch.effective_batch_size,
        largest_micro_batch=plan.batch.largest_micro_batch,
        micro_multiple=plan.batch.micro_multiple,
        world_size=world_size,
        rank=rank,
    )


def _distributed(model: torch.nn.Module, peers: Peers) -> torch.nn.Module:
    """The model, its gradients averaged over all ranks; a rank alone needs nobody for that."""
    if peers.world.world_size == 1:
        return model
    ids = [peers.device.index] if peers.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def _evaluator(inputs: Inputs, parts: UserParts, precision: Precision, peers: Peers) -> Evaluator:
    recipe = inputs.recipe
    return Evaluator(
        parts.validation,
        parts.objective,
        precision,
        peers,
        recipe.loader,
        largest_batch=recipe.evaluation.batch or inputs.plan.batch.micro_batch_size,
        memory=MemoryWatch.of(recipe, rank=peers.world.rank, device=precision.device),
    )


def memory_peaks(inputs: Inputs, peers: Peers, memory: PeakMemory) -> dict[str, float]:
    """The highest peak of any rank in GiB, beside the predicted one where the plan has a prediction. A collective."""
    peaks = {"memory/observed_peak_gib": peers.largest(memory.observed_bytes()) / GIB}
    batch, planned = inputs.plan.batch, inputs.plan.memory
    if planned is not None:
        accumulating = batch.gradient_accumulation_steps > 1
        predicted = planned.predicted_peak_bytes(batch.micro_batch_size, accumulating=accumulating)
        peaks["memory/predicted_peak_gib"] = predicted / GIB
    return peaks


def write_outcome(attempt: AttemptDir, progress: Progress, stopped_by: str | None) -> None:
    """done.json, or stop.json when a signal asked for the end. The checkpoint it names is committed."""
    outcome = {
        "step": progress.step,
        "consumed_samples": progress.consumed_samples,
        "checkpoint": checkpoint_name(progress.step),
        "time": time.time(),
    }
    if stopped_by:
        write_json(attempt.stop, {"signal": stopped_by, **outcome})
    else:
        metrics = {name: value if math.isfinite(value) else str(value) for name, value in progress.metrics.items()}
        write_json(attempt.done, {**outcome, "metrics": metrics})


def end_children() -> None:
    """Kill loader processes that did not end when told to: they ignore SIGTERM, and exiting would wait for them."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
