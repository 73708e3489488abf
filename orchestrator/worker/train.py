"""One attempt on one rank: everything is built from the run directory, trained, and what happened is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from orchestrator.pulse import Phase
from orchestrator.run_dir import AttemptDir, RunDir
from orchestrator.tracking.journal import Journal
from orchestrator.worker.checkpoints.saver import Saver
from orchestrator.worker.compilation import compile_model
from orchestrator.worker.course import Checkpoints, Course
from orchestrator.worker.data.bad_samples import BadSamples
from orchestrator.worker.data.content import check_contents
from orchestrator.worker.data.datasets import Datasets, open_datasets
from orchestrator.worker.data.lanes import open_stream
from orchestrator.worker.data.loader import MicroBatches
from orchestrator.worker.ending import end_children, memory_peaks, write_outcome
from orchestrator.worker.evaluation import Evaluator
from orchestrator.worker.exchange import Exchange
from orchestrator.worker.failure import at_step
from orchestrator.worker.inputs import Inputs, read_inputs
from orchestrator.worker.intake import Intake
from orchestrator.worker.loss import Objective
from orchestrator.worker.memory_watch import MemoryWatch
from orchestrator.worker.optimizer import make_optimizer
from orchestrator.worker.own_time import own_time_of
from orchestrator.worker.peak import PeakMemory
from orchestrator.worker.precision import Precision
from orchestrator.worker.preemption import StopRequest
from orchestrator.worker.preflight import compare_nodes
from orchestrator.worker.progress import Cadences, Progress
from orchestrator.worker.pulse import Pulse
from orchestrator.worker.recompute import recompute_blocks
from orchestrator.worker.seeds import seed_torch
from orchestrator.worker.settled import Settled
from orchestrator.worker.shown import Shown
from orchestrator.worker.targets import UserCode, build_model
from orchestrator.worker.trainer import Trainer
from orchestrator.worker.tuning.amp_tuner import amp_tuner_of
from orchestrator.worker.tuning.gradients import Comparison
from orchestrator.worker.tuning.loader_tuner import begin_with, tuner_of
from orchestrator.worker.tuning.micro_room import micro_room_of
from orchestrator.worker.window_step import WindowStep
from orchestrator.worker.windows import Windows, windows_of
from orchestrator.worker.world import Peers, World


@dataclass(frozen=True)
class UserParts:
    """The user's code at work: what the recipe's targets made."""

    model: torch.nn.Module
    training: Datasets
    validation: dict[str, Datasets]
    objective: Objective
    code: UserCode
    optimizer: torch.optim.Optimizer
    memory: PeakMemory
    """Counts from just before the model was made."""


def train(
    run: RunDir, attempt: AttemptDir, env: Mapping[str, str], stop: StopRequest, pulse: Pulse | None = None
) -> None:
    """Train this attempt to its end or to a signal; rank 0 then leaves done.json or stop.json. Errors are raised.

    Without a `pulse` nobody feels this rank's.
    """
    pulse = pulse or Pulse()
    world = World.from_env(env)
    inputs = read_inputs(run, attempt, world)
    device = world.device(inputs.accelerator)
    precision = Precision(inputs.recipe.precision, device)
    precision.begin()
    pulse.beat()
    parts = make_user_parts(inputs, precision)
    pulse.beat()
    with (
        Journal(run.path, attempt=attempt.number, node=inputs.node, rank=world.rank) as journal,
        world.connected(device) as peers,
    ):
        compare_nodes(inputs, peers, journal, pulse)
        contents = check_contents(parts.training, parts.validation, peers, journal)
        saver = Saver(inputs, peers, parts.model, parts.optimizer, precision, journal, contents, pulse=pulse)
        pulse.beat()
        trainer = make_trainer(inputs, parts, precision, peers, journal, stop, saver, pulse)
        trainer.room = micro_room_of(trainer.course, inputs.recipe, parts.model, parts.optimizer, parts.memory)
        stopped_by = _run(trainer, saver)
        pulse.enter(Phase.END)
        peaks = memory_peaks(inputs, peers, parts.memory)
        if world.rank == 0:
            journal.metrics(trainer.course.progress.step, peaks)
            write_outcome(attempt, trainer.course.progress, stopped_by)
        trainer.batches.close()
        trainer.evaluator.close()
    end_children()


def _run(trainer: Trainer, saver: Saver) -> str | None:
    """Train; whatever ends it early, what has been learnt is saved first as far as that can be."""
    try:
        return trainer.run()
    except BaseException as error:
        progress = trainer.course.progress
        at_step(error, progress.step + 1)
        if trainer.tuner is not None:
            trainer.tuner.lost(error)
        trainer.course.tell_what_is_known()
        saver.rescue(error, progress, is_whole=trainer.window_step.settled.is_whole_at(progress.step))
        raise


def make_user_parts(inputs: Inputs, precision: Precision) -> UserParts:
    """Call the recipe's targets. The model is initialised from the run's seed alone, alike on every rank."""
    recipe, code = inputs.recipe, UserCode(inputs.run.snapshot_recipe)
    assert recipe.model is not None, "a recipe for this loop has a model"
    skips_bad = recipe.loader.bad_samples > 0
    training = open_datasets(
        code,
        recipe.datasets,
        seed=recipe.seed,
        where="datasets",
        skips_bad=skips_bad,
        grouped=recipe.loader.group_by_length,
    )
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
    if recipe.compile:
        compile_model(model, precision.device)
    optimizer = make_optimizer(model.parameters(), recipe.optimizer, code.make)
    return UserParts(model, training, validation, objective, code, optimizer, memory)


def make_trainer(
    inputs: Inputs,
    parts: UserParts,
    precision: Precision,
    peers: Peers,
    journal: Journal,
    stop: StopRequest,
    saver: Checkpoints,
    pulse: Pulse,
) -> Trainer:
    """The loop, with weights and position from the newest good checkpoint if there is one."""
    recipe, plan, world = inputs.recipe, inputs.plan, peers.world
    progress = saver.restore() or Progress()
    windows = _windows(inputs, parts, world)
    begun = begin_with(inputs, peers)

    def batches_from(consumed_samples: int) -> MicroBatches:
        draws, begin = windows.draws_from(consumed_samples), {"workers": begun.workers, "prefetch": begun.prefetch}
        return open_stream(parts.training, draws, recipe, device=precision.device, **begin)

    evaluator = _evaluator(inputs, parts, precision, peers, pulse)
    own_time, model = own_time_of(peers, parts.model), peers.distribute(parts.model)
    course = Course(
        plan=plan,
        cadences=Cadences.of(recipe, plan),
        progress=progress,
        windows=windows,
        journal=journal,
        peers=peers,
        stop=stop,
        saver=saver,
        journal_ids=recipe.tracking.sample_ids,
        evaluate=partial(evaluator.run, parts.model) if evaluator.has_sets else None,
        show=_shown(inputs, parts, precision),
        pulse=pulse,
        deadline=inputs.deadline(),
        own_time=own_time,
        exposed_s=Exchange(model).exposed_s,
        nodes=inputs.node_of_each_rank(),
    )
    bad_samples = BadSamples(recipe.loader.bad_samples, progress, journal, peers)
    step = WindowStep(
        model=model,
        optimizer=parts.optimizer,
        scaler=saver.scaler,
        objective=parts.objective,
        precision=precision,
        intake=Intake(windows, parts.objective.count, bad_samples, peers, own_time),
        settled=Settled(parts.model),
        peers=peers,
        clip_norm=recipe.optimizer.clip_norm,
        seed=recipe.seed,
        memory=MemoryWatch.of(recipe, rank=world.rank, device=precision.device),
        pulse=pulse,
        own_time=own_time,
    )
    batches = batches_from(progress.consumed_samples)
    tuner = tuner_of(inputs, batches, course, begun)
    amp = amp_tuner_of(inputs, Comparison(parts.model, parts.objective, precision), step, course, tuner)
    return Trainer(course, step, batches, batches_from, evaluator, tuner, amp, policy=recipe.on_non_finite_loss)


def _windows(inputs: Inputs, parts: UserParts, world: World) -> Windows:
    lengths = parts.training.lengths_of if inputs.recipe.loader.group_by_length else None
    return windows_of(inputs, world_size=world.world_size, rank=world.rank, lengths=lengths)


def _shown(inputs: Inputs, parts: UserParts, precision: Precision) -> Shown | None:
    wanted = inputs.recipe.evaluation.show
    if wanted is None:
        return None
    return Shown.of(wanted, parts.code, parts.model, precision, inputs.run.shown)


def _evaluator(inputs: Inputs, parts: UserParts, precision: Precision, peers: Peers, pulse: Pulse) -> Evaluator:
    recipe = inputs.recipe
    return Evaluator(
        parts.validation,
        parts.objective,
        precision,
        peers,
        recipe.loader,
        largest_batch=recipe.evaluation.batch or inputs.plan.batch.micro_batch_size,
        memory=MemoryWatch.of(recipe, rank=peers.world.rank, device=precision.device),
        pulse=pulse,
    )
